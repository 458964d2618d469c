"""Digits on demand: EDM told which digit to draw, with classifier-free guidance.

Result: the digit asked for in 0.999 of 1,000 samples, read by digits_cnn (which reads 0.994 of the test digits right),
and fd_digits_cnn 0.623 (baseline 0.448), after 3.3 min on 2 CPU cores (uv run train.py
configs/diffusion/digits_conditional.py)
"""

from configs.diffusion import digits_edm
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Heun
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.metrics.class_accuracy import ClassAccuracy
from jaxgen.objectives.diffusion import Diffusion


def config() -> Experiment:
    objective = Diffusion(
        net=Learner(module=digits_edm.net(classes=10), optimizer=digits_edm.OPTIMIZER, ema=digits_edm.AVERAGES),
        path=Edm(),
        prediction=EdmPreconditioning(sigma_data=0.8),
        noise_distribution=digits_edm.LEVELS,
        sampling=Sampling(solver=Heun(), schedule=Rho(steps=18), guidance=ClassifierFree(scale=1.5)),
        condition_dropout=0.1,
    )
    return digits_edm.digits(objective, transforms=(), measures=(ClassAccuracy(),))
