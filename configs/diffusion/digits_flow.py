"""Rectified flow on digits: straight lines from noise to handwriting, the net and the budget of digits_edm.

Result: fd_digits_cnn 0.824 (baseline 0.448) after 4.2 min on 2 CPU cores while another job ran (uv run train.py
configs/diffusion/digits_flow.py)
"""

from configs.diffusion import digits_edm
from jaxgen.diffusion.flow import FlowHeun
from jaxgen.diffusion.noise_distributions import LogitNormal, LowDiscrepancy
from jaxgen.diffusion.path import Flow
from jaxgen.diffusion.predictions import Direct
from jaxgen.diffusion.quantities import Velocity
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import UniformTime
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.objectives.diffusion import Diffusion


def config() -> Experiment:
    return digits_edm.digits(
        Diffusion(
            net=Learner(module=digits_edm.net(), optimizer=digits_edm.OPTIMIZER, ema=digits_edm.AVERAGES),
            path=Flow(),
            prediction=Direct(quantity=Velocity(), time_scale=10.0),
            noise_distribution=LowDiscrepancy(distribution=LogitNormal()),
            sampling=Sampling(solver=FlowHeun(), schedule=UniformTime(steps=18)),
        )
    )
