"""Class-conditional R3GAN on CIFAR-10: the recipe of arXiv:2501.05441, appendix D.

Result: unverified (the paper: FID 1.96 and recall 0.57 after 250 million images, 4 days on 8 L40)

Prepare the data once: uv run --extra prepare tfds build cifar10 --file_format=array_record
"""

import flax.linen as nn

from jaxgen.adversarial.ada import Ada
from jaxgen.adversarial.augmentation import Fixed
from jaxgen.adversarial.penalties import R1, R2
from jaxgen.data.augment import Flip
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.optim.ema import RampedHalfLifeEma
from jaxgen.optim.optimizer import Optimizer, RampedAdam
from jaxgen.optim.schedules import CosineRamp

BATCH = 512  # real images in each of a step's two updates
STEPS = 250_000_000 // BATCH


def config() -> Experiment:
    return Experiment(
        objective=game(
            R3ganGenerator(classes=10, dtype="bfloat16"),
            R3ganDiscriminator(classes=10, dtype="bfloat16"),
            steps=STEPS,
            batch=BATCH,
            gamma=0.05,
            augmented=0.55,
            half_life=5_000_000,
        ),
        train=Pipeline(source=Tfds("cifar10", split="train"), transforms=(Flip(),)),
        test=Pipeline(source=Tfds("cifar10", split="test")),
        steps=STEPS,
        batch_size=2 * BATCH,
        test_batch_size=1000,
        log_every=100,
        preview_every=5000,
        checkpoint_every=2000,
    )


def game(
    generator: nn.Module,
    discriminator: nn.Module,
    *,
    steps: int,
    batch: int,
    gamma: float,
    augmented: float,
    half_life: float,
) -> Gan:
    """R3GAN's game: everything ramps over a burn-in of 20 million images (appendix D).

    `gamma` falls to a tenth; the probability `augmented` and the EMA's half-life, in images, rise from 0.
    """
    until = 20_000_000 / (steps * batch)
    optimizer = Optimizer(
        learning_rate=CosineRamp(first=2e-4, last=5e-5, until=until),
        method=RampedAdam(b2=CosineRamp(first=0.9, last=0.99, until=until)),
    )
    ema = RampedHalfLifeEma(steps=half_life / batch, until=until * steps)
    falling = CosineRamp(first=gamma, last=gamma / 10, until=until)
    return Gan(
        generator=Learner(module=generator, optimizer=optimizer, ema=(ema,)),
        discriminator=Learner(module=discriminator, optimizer=optimizer),
        penalties=(R1(gamma=falling), R2(gamma=falling)),
        augmentation=Ada(
            p=Fixed(p=CosineRamp(first=0.0, last=augmented, until=until)),
            brightness=0.5,
            contrast=0.5,
            lumaflip=0.5,
            hue=0.5,
            saturation=0.5,
            cutout=1.0,
        ),
    )
