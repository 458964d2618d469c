"""R3GAN on digits: a generator and a discriminator without normalisation, stable by R1 and R2.

Result: unverified
"""

from jaxgen.adversarial.penalties import R1, R2
from jaxgen.data.augment import Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.digits import Digits
from jaxgen.experiment import Experiment
from jaxgen.features.digits_cnn import DigitsCnn
from jaxgen.learner import Learner
from jaxgen.metrics.distribution import Distribution
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer, RampedAdam
from jaxgen.optim.schedules import CosineRamp


def config() -> Experiment:
    return digits(r3gan(classes=0))


def r3gan(classes: int) -> Gan:
    """The nets and the game, with or without classes."""
    optimizer = Optimizer(learning_rate=CosineRamp(first=1e-3, last=1e-4), method=RampedAdam())
    gamma = CosineRamp(first=1.0, last=0.1)
    widths = (64, 32)
    return Gan(
        generator=Learner(
            module=R3ganGenerator(classes=classes, channels=1, widths=widths, blocks=1),
            optimizer=optimizer,
            ema=(HalfLifeEma(steps=200.0),),
        ),
        discriminator=Learner(
            module=R3ganDiscriminator(classes=classes, widths=widths, blocks=1, embedding=64), optimizer=optimizer
        ),
        penalties=(R1(gamma=gamma), R2(gamma=gamma)),
    )


def digits(objective: Gan, transforms: tuple = (Unlabelled(),), metrics: tuple = (), steps: int = 3000) -> Experiment:
    """The data and the budget that the configs on digits share."""
    return Experiment(
        objective=objective,
        train=Pipeline(source=Digits(split="train"), transforms=transforms),
        test=Pipeline(source=Digits(split="test"), transforms=transforms),
        metrics=(Distribution(features=DigitsCnn(), samples=1437), *metrics),
        steps=steps,
        batch_size=64 * objective.batch_parts,
        test_batch_size=360,
        log_every=50,
        preview_every=1000,
        checkpoint_every=500,
    )
