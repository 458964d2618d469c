"""Super-resolution: RRDBNet four times as large, by distance alone, on a folder of photographs such as DIV2K's.

Result: unverified

ESRGAN's first stage (arXiv:1809.00219, section 4.1): crops of 128 pixels, 16 a batch. Its second stage starts from this
run's weights, with a discriminator, `l1=0.01`, `adversarial_weight=0.005` and perceptual features of the user's own.
"""

from jaxgen.data.augment import CenterCrop, Flip, PadCrop
from jaxgen.data.batches import Pipeline
from jaxgen.data.damage import Shrink
from jaxgen.data.folder import Images
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.super_resolution import Rrdb
from jaxgen.objectives.restoration import Restoration
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    return Experiment(
        objective=Restoration(
            net=Learner(
                module=Rrdb(scale=4, remat=True),
                optimizer=Optimizer(learning_rate=Cosine(peak=2e-4), method=Adam(b1=0.9, b2=0.99)),
                ema=(HalfLifeEma(steps=693.0),),
            ),
        ),
        train=Pipeline(
            source=Images("data/DIV2K/train"),
            transforms=(PadCrop(height=128, width=128, pad=0), Flip(), Shrink(factor=4)),
            workers=8,
        ),
        test=Pipeline(source=Images("data/DIV2K/valid"), transforms=(CenterCrop(480, 480), Shrink(factor=4))),
        steps=1_000_000,
        batch_size=16,
        test_batch_size=4,
        log_every=500,
        evaluate_every=20_000,
        preview_every=20_000,
        checkpoint_every=5_000,
    )
