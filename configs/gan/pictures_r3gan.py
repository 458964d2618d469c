"""R3GAN at 64×64 on a folder of pictures of your own, `pictures/`, with DiffAugment, as they are few.

Result: unverified (it depends on your pictures; docs/first_day.md)

uv run train.py configs/gan/pictures_r3gan.py --train.source.path DIR --test.source.path DIR
"""

from jaxgen.adversarial.diffaugment import DiffAugment
from jaxgen.adversarial.penalties import R1, R2
from jaxgen.data.augment import Flip, Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Images
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer, RampedAdam
from jaxgen.optim.schedules import CosineRamp

WIDTHS = (128, 128, 64, 32, 32)  # at 4x4, 8x8, … 64x64


def config() -> Experiment:
    optimizer = Optimizer(learning_rate=CosineRamp(first=1e-3, last=1e-4), method=RampedAdam())
    gamma = CosineRamp(first=2.0, last=0.2)
    return Experiment(
        objective=Gan(
            generator=Learner(
                module=R3ganGenerator(classes=0, channels=3, widths=WIDTHS, blocks=1),
                optimizer=optimizer,
                ema=(HalfLifeEma(steps=200.0),),
            ),
            discriminator=Learner(
                module=R3ganDiscriminator(classes=0, widths=WIDTHS, blocks=1, embedding=64), optimizer=optimizer
            ),
            penalties=(R1(gamma=gamma), R2(gamma=gamma)),
            augmentation=DiffAugment(),
        ),
        train=Pipeline(source=Images("pictures"), transforms=(Resize(64, 64), Flip())),
        test=Pipeline(source=Images("pictures"), transforms=(Resize(64, 64),)),
        steps=3000,
        batch_size=16,
        preview_every=200,
    )
