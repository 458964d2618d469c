"""R3GAN's game in the plane: 25 Gaussians, and a generator has to cover every one of them.

Result: by PacGAN's protocol (2,500 samples, 3 std) 25 of 25 modes for each of the seeds 0 to 4, and of high quality
0.981, 0.976, 0.981, 0.981 and 0.981 of the samples (0.987 of the data); within the modes their standard deviation is
0.55 to 0.64 of the data's (0.90, with high quality 0.942, where the discriminator has octaves: docs/gan.md).
4.0 to 6.1 min on 2 CPU cores, of which it had one, with other jobs running (uv run train.py configs/gan/grid25.py)
"""

from jaxgen.adversarial.penalties import R1, R2
from jaxgen.data.augment import Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.mixture import GridOfGaussians, Mixture
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.metrics.modes import Modes
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import CosineRamp


def config() -> Experiment:
    return plane(GridOfGaussians(), GridOfGaussians(seed=1, size=2500), scale=2.0)


def plane(train: Mixture, test: Mixture, scale: float) -> Experiment:
    """What the mixtures share; `scale` is about as long as the points lie from 0."""
    optimizer = Optimizer(learning_rate=CosineRamp(first=2e-3, last=1e-5), method=Adam(b1=0.0, b2=0.99))
    # A gradient norm is per unit of length, so that gamma grows with the square of the scale. It ends small, since
    # modes as narrow as these need a steep discriminator.
    gamma = CosineRamp(first=0.25 * scale**2, last=2.5e-5 * scale**2)
    return Experiment(
        objective=Gan(
            generator=Learner(
                module=MlpGenerator(width=128, depth=4), optimizer=optimizer, ema=(HalfLifeEma(steps=500.0),)
            ),
            discriminator=Learner(module=MlpDiscriminator(scale=scale, width=128, depth=4), optimizer=optimizer),
            penalties=(R1(gamma=gamma), R2(gamma=gamma)),
            side=50,
        ),
        train=Pipeline(source=train, transforms=(Unlabelled(),)),
        test=Pipeline(source=test, transforms=(Unlabelled(),)),
        metrics=(Modes(source=train),),
        steps=120_000,
        batch_size=200,
        test_batch_size=2500,
        log_every=3000,
        preview_every=20_000,
        checkpoint_every=20_000,
    )
