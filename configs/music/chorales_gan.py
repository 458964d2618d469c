"""Two bars of four-part chorale by a GAN: private and shared parts for the voices, and decisions that pass gradients.

Result: chords 0.40 (independent voices 0.24, test 0.89), voices cross at 0.042 of the steps (0.080, 0.008), nothing
copied; pitch classes 0.14 from the training data's (0.12, 0.02), lengths 0.39 (0.04, 0.04), 0.34 parallels a bar (0.34,
0.02), of 512 samples, after 29.9 min on 2 CPU cores of which it had one (uv run --extra music train.py
configs/music/chorales_gan.py): `music/chorales_edm` is better music in less time

Needs the package music21: uv run --extra music train.py configs/music/chorales_gan.py
"""

from typing import Any

from jaxgen.adversarial.penalties import R1, R2
from jaxgen.data.batches import Pipeline
from jaxgen.data.chorales import Chorales, Transpose
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.metrics.music import Music
from jaxgen.models.musegan import RollDiscriminator, RollGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer, RampedAdam
from jaxgen.optim.schedules import CosineRamp


def config() -> Experiment:
    optimizer = Optimizer(learning_rate=CosineRamp(first=1e-3, last=1e-4), method=RampedAdam())
    # Symbols lie far apart, some 16 from roll to roll: with 1.0 a slope that costs nothing tells real from made.
    gamma = CosineRamp(first=30.0, last=5.0)
    gan = Gan(
        generator=Learner(module=RollGenerator(width=96), optimizer=optimizer, ema=(HalfLifeEma(steps=200.0),)),
        discriminator=Learner(module=RollDiscriminator(), optimizer=optimizer),
        penalties=(R1(gamma=gamma), R2(gamma=gamma)),
        side=3,
    )
    return chorales(gan, steps=2500, batch_size=64)


def chorales(objective: Any, steps: int, batch_size: int) -> Experiment:
    """The data and the measures that the configs on chorales share."""
    return Experiment(
        objective=objective,
        train=Pipeline(source=Chorales(split="train"), transforms=(Transpose(),)),
        test=Pipeline(source=Chorales(split="test")),
        metrics=(Music(),),
        steps=steps,
        batch_size=batch_size,
        test_batch_size=64,
        log_every=50,
        preview_every=1000,
        checkpoint_every=500,
    )
