"""The run in tests/stored_run, in today's words."""

from jaxgen.data.augment import Flip
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeLabels
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import LogNormal, LowDiscrepancy
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Heun
from jaxgen.diffusion.weighting import Uncertainty, Unweighted
from jaxgen.experiment import Experiment
from jaxgen.features.pixels import Pixels
from jaxgen.learner import Learner
from jaxgen.metrics.distribution import Distribution
from jaxgen.models.dit import DiT
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import ConstantEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=DiT(classes=3, width=8, depth=1, heads=2, patch=2),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-2), clip=1.0, lr_multipliers=((r"kernel$", 0.5),)),
                ema=(ConstantEma(decay=0.9),),
            ),
            path=Edm(),
            prediction=EdmPreconditioning(sigma_data=0.5),
            noise_distribution=LowDiscrepancy(distribution=LogNormal()),
            weighting=Uncertainty(base=Unweighted(), channels=8),
            sampling=Sampling(solver=Heun(), schedule=Rho(steps=3), guidance=ClassifierFree(scale=1.5)),
            condition_dropout=0.2,
            side=2,
        ),
        train=Pipeline(source=FakeLabels(height=8, width=8, channels=1, classes=3, size=48), transforms=(Flip(),)),
        test=Pipeline(source=FakeLabels(height=8, width=8, channels=1, classes=3, size=13)),
        metrics=(Distribution(features=Pixels(), samples=32),),
        steps=20,
        batch_size=16,
        test_batch_size=8,
        log_every=5,
        preview_every=20,
        checkpoint_every=10,
    )
