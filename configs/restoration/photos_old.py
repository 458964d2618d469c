"""Restoration: old photographs, faded, brown, soft, grainy and scratched, as they were when they were new.

Result: psnr_y 23.13 dB, ssim_y 0.598 on squares of four other photographs (as they are damaged: 16.36 and 0.503), psnr
19.76 (13.92), after 14.6 min on 2 CPU cores that had other work too, 21 min of CPU time
(uv run train.py configs/restoration/photos_old.py); colours and contrast come back, traces of scratches and grain stay
"""

from jaxgen.data.augment import Flip, RandomScaleCrop
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
            transforms=(RandomScaleCrop(height=96, width=96, low=0.7, high=1.0), Flip(), Age()),
        ),
        test=Pipeline(source=Photographs(split="test", size=128), transforms=(Age(),)),
        steps=1000,
        batch_size=16,
        test_batch_size=16,
        log_every=50,
        evaluate_every=500,
        preview_every=500,
        checkpoint_every=500,
    )
