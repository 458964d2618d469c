"""Rectified flow on digits: straight lines from noise to handwriting, the net and the budget of digits_edm.

Promise: unverified
"""

from configs.diffusion import digits_edm
from jaxgen.average import HalfLife
from jaxgen.diffusion.flow import FlowHeun
from jaxgen.diffusion.grids import Uniform
from jaxgen.diffusion.levels import LogitNormal
from jaxgen.diffusion.path import Flow
from jaxgen.diffusion.predictions import Plain
from jaxgen.diffusion.quantities import Velocity
from jaxgen.diffusion.sampling import Sampling
from jaxgen.experiment import Experiment
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim import Cosine, Optimizer


def config() -> Experiment:
    return digits_edm.digits(
        Diffusion(
            net=digits_edm.net(),
            optimizer=Optimizer(rate=Cosine(rate=3e-3), clip=1.0),
            path=Flow(),
            prediction=Plain(quantity=Velocity(), time_scale=10.0),
            levels=LogitNormal(),
            sampling=Sampling(solver=FlowHeun(), grid=Uniform(steps=18)),
            averages=(HalfLife(steps=100.0),),
        )
    )
