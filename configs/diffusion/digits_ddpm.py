"""DDPM on digits: a net that predicts the noise of a thousand small steps, sampled by DDIM in fifty.

Promise: unverified
"""

from configs.diffusion import digits_edm
from jaxgen.average import HalfLife
from jaxgen.diffusion.grids import Trailing
from jaxgen.diffusion.levels import Uniform
from jaxgen.diffusion.path import LinearBetas
from jaxgen.diffusion.predictions import Plain
from jaxgen.diffusion.quantities import Eps
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.experiment import Experiment
from jaxgen.measures.likelihood import Likelihood
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim import Cosine, Optimizer


def config() -> Experiment:
    return digits_edm.digits(
        Diffusion(
            net=digits_edm.net(),
            optimizer=Optimizer(rate=Cosine(rate=3e-3), clip=1.0),
            path=LinearBetas(),
            prediction=Plain(quantity=Eps()),
            levels=Uniform(),
            sampling=Sampling(solver=Ddim(), grid=Trailing(steps=50)),
            averages=(HalfLife(steps=100.0),),
        ),
        measures=(Likelihood(steps=32, probes=1, sigma_min=None, sigma_max=None),),
    )
