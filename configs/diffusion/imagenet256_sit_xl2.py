"""SiT-XL/2: the transformer of imagenet256_dit_xl2 trained by flow matching (arXiv:2401.08740).

Result: unverified (the paper: FID 8.3, or 2.06 at guidance 1.5 with 250 steps of its SDE; needs a pod)
"""

from configs.diffusion import imagenet256_dit_xl2
from jaxgen.diffusion.flow import FlowHeun
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import Uniform
from jaxgen.diffusion.path import Flow
from jaxgen.diffusion.predictions import Direct
from jaxgen.diffusion.quantities import Velocity
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import UniformTime
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import ConstantEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant


def config() -> Experiment:
    return imagenet256_dit_xl2.latents(
        Diffusion(
            net=Learner(
                module=imagenet256_dit_xl2.xl2(),
                optimizer=Optimizer(learning_rate=Constant(value=1e-4)),
                ema=(ConstantEma(decay=0.9999),),
            ),
            path=Flow(),
            prediction=Direct(quantity=Velocity()),
            noise_distribution=Uniform(),
            sampling=Sampling(solver=FlowHeun(), schedule=UniformTime(steps=125), guidance=ClassifierFree(scale=1.5)),
            condition_dropout=0.1,
            side=4,
        )
    )
