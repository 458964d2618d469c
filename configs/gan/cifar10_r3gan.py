"""R3GAN on CIFAR-10, told the class: the recipe of arXiv:2501.05441, appendix D.

Promise: unverified (the paper: FID 1.96 and recall 0.57 after 250 million images, 4 days on 8 L40)

Prepare the data once: uv run --extra prepare tfds build cifar10 --file_format=array_record
"""

from jaxgen.adversarial.ada import Ada
from jaxgen.adversarial.augmentation import Fixed
from jaxgen.adversarial.penalties import R1, R2
from jaxgen.average import RampedHalfLife
from jaxgen.data.augment import Flip
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.optim import CosineRamp, Optimizer, RampedAdam

BATCH = 512  # real pictures in each of a step's two phases
IMAGES, BURN_IN = 250_000_000, 20_000_000


def config() -> Experiment:
    steps, until = IMAGES // BATCH, BURN_IN / IMAGES
    optimizer = Optimizer(
        rate=CosineRamp(first=2e-4, last=5e-5, until=until),
        method=RampedAdam(b2=CosineRamp(first=0.9, last=0.99, until=until)),
    )
    gamma = CosineRamp(first=0.05, last=0.005, until=until)
    return Experiment(
        objective=Gan(
            generator=R3ganGenerator(classes=10, dtype="bfloat16"),
            discriminator=R3ganDiscriminator(classes=10, dtype="bfloat16"),
            generator_optimizer=optimizer,
            discriminator_optimizer=optimizer,
            penalties=(R1(gamma=gamma), R2(gamma=gamma)),
            augmentation=Ada(
                p=Fixed(p=CosineRamp(first=0.0, last=0.55, until=until)),
                brightness=0.5,
                contrast=0.5,
                lumaflip=0.5,
                hue=0.5,
                saturation=0.5,
                cutout=1.0,
            ),
            averages=(RampedHalfLife(steps=5_000_000 / BATCH, until=until * steps),),
        ),
        train=Pipeline(source=Tfds("cifar10", split="train"), transforms=(Flip(),)),
        test=Pipeline(source=Tfds("cifar10", split="test")),
        steps=steps,
        batch_size=2 * BATCH,
        test_batch_size=1000,
        log_every=100,
        preview_every=5000,
        checkpoint_every=2000,
    )
