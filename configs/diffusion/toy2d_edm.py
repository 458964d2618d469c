"""EDM in the plane: a two-arm spiral whose density is known, so that samples and likelihoods can be held to it.

Result: log-likelihood -0.155 nats of the test points (-0.157 under the true density), 200 of 200 modes, 0.988 of the
samples within 3 std of one (0.996 of the data), after 3.2 min on 2 CPU cores while another job ran (uv run train.py
configs/diffusion/toy2d_edm.py)
"""

from jaxgen.data.augment import Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.mixture import Spiral
from jaxgen.diffusion.noise_distributions import LogNormal
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Heun
from jaxgen.experiment import Experiment
from jaxgen.features.pixels import Pixels
from jaxgen.learner import Learner
from jaxgen.metrics.distribution import Distribution
from jaxgen.metrics.likelihood import Likelihood
from jaxgen.metrics.modes import Modes
from jaxgen.models.mlp import MlpDenoiser
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=MlpDenoiser(),
                optimizer=Optimizer(learning_rate=Cosine(peak=2e-3)),
                ema=(HalfLifeEma(steps=200.0),),
            ),
            path=Edm(sigma_max=20.0),
            prediction=EdmPreconditioning(sigma_data=0.5),
            noise_distribution=LogNormal(mean=-2.0, std=1.5),
            sampling=Sampling(solver=Heun(), schedule=Rho(steps=24, sigma_max=20.0)),
            side=64,
        ),
        train=Pipeline(source=Spiral(), transforms=(Unlabelled(),)),
        test=Pipeline(source=Spiral(seed=1, size=4000), transforms=(Unlabelled(),)),
        metrics=(
            Distribution(features=Pixels(), samples=4000),
            Modes(source=Spiral(), samples=4000),
            Likelihood(rows=2000, sigma_max=20.0, source=Spiral()),
        ),
        steps=4000,
        batch_size=1024,
        test_batch_size=2000,
        log_every=100,
        preview_every=1000,
        checkpoint_every=1000,
    )
