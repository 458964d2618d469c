"""Restoration: old photographs, faded, brown, soft, grainy and scratched, as they were when they were new.

Result: psnr_y 26.47 dB, ssim_y 0.815 on squares of four other photographs (as they are damaged: 16.35 and 0.504), psnr
23.44 (14.19), after 7.6 min on 2 CPU cores that had other work too (uv run train.py configs/restoration/photos_old.py)
"""

from jaxgen.data.augment import Flip, Photometric, RandomScaleCrop
from jaxgen.data.batches import Pipeline
from jaxgen.data.damage import Age
from jaxgen.data.photographs import Photographs
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.drunet import DrUnet
from jaxgen.objectives.restoration import Restoration
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.muon import Muon
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Cosine

# Some colour is left: what none is left of can only be guessed, and nine photographs teach little of that. Turned hues
# keep the net from learning their colours by heart.
AGE = Age(browning=(0.2, 0.7))


def config() -> Experiment:
    # Nothing of the image is added to what it makes: scratches would shine through.
    net = DrUnet(widths=(32, 64, 128), blocks=2, bias=True, folded=2)
    return Experiment(
        objective=Restoration(
            net=Learner(
                module=net,
                optimizer=Optimizer(learning_rate=Cosine(peak=3e-3), method=Muon(adam=Adam(b2=0.99)), clip=1.0),
                ema=(HalfLifeEma(steps=100.0),),
            ),
        ),
        train=Pipeline(
            source=Photographs(split="train", size=144, stride=72),
            transforms=(RandomScaleCrop(height=96, width=96, low=0.7, high=1.0), Flip(), Photometric(hue=0.5), AGE),
        ),
        test=Pipeline(source=Photographs(split="test", size=128), transforms=(AGE,)),
        steps=1000,
        batch_size=16,
        test_batch_size=16,
        log_every=50,
        evaluate_every=500,
        preview_every=500,
        checkpoint_every=500,
    )
