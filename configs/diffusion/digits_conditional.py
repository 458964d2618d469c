"""Digits on demand: EDM told which digit to draw, with classifier-free guidance.

Promise: unverified
"""

from configs.diffusion import digits_edm
from jaxgen.average import HalfLife
from jaxgen.diffusion.grids import Rho
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.levels import LogNormal
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import Karras
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.solvers import Heun
from jaxgen.experiment import Experiment
from jaxgen.measures.readback import Readback
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim import Cosine, Optimizer


def config() -> Experiment:
    objective = Diffusion(
        net=digits_edm.net(classes=10),
        optimizer=Optimizer(rate=Cosine(rate=3e-3), clip=1.0),
        path=Edm(),
        prediction=Karras(sigma_data=0.8),
        levels=LogNormal(mean=-0.8, std=1.2),
        sampling=Sampling(solver=Heun(), grid=Rho(steps=18), guidance=ClassifierFree(scale=1.5)),
        label_dropout=0.1,
        averages=(HalfLife(steps=100.0),),
    )
    return digits_edm.digits(objective, transforms=(), measures=(Readback(),))
