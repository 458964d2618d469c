"""DiT-XL/2 on ImageNet 256×256, in 32×32×4 latents of an autoencoder (arXiv:2212.09748).

Result: unverified (the paper: FID 9.62, or 2.27 at guidance 1.5, 7 million steps of 256; needs a pod; it also learns
the variance of its steps, and this does not)

The latents are prepared once: data/imagenet256/train_latents.npy (f16[n 32 32 4], as the encoder gives them) and
train_labels.npy, and the same for validation.
"""

import flax.linen as nn

from jaxgen.data.batches import Pipeline
from jaxgen.data.latents import Latents
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import Uniform
from jaxgen.diffusion.path import LinearBetas
from jaxgen.diffusion.predictions import Direct
from jaxgen.diffusion.quantities import Eps
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Trailing
from jaxgen.diffusion.stochastic import Ancestral
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.dit import XL, DiT
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import ConstantEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Fsdp

UNSCALED = (1 / 0.18215,) * 4  # the autoencoder of Stable Diffusion 1 multiplies its latents by 0.18215


def xl2() -> nn.Module:
    return DiT(**XL, patch=2, classes=1000, dtype="bfloat16", remat=True)


def latents(objective: Diffusion) -> Experiment:
    """The data and the budget that the transformers share."""
    return Experiment(
        objective=objective,
        train=Pipeline(source=Latents(folder="data/imagenet256", split="train", std=UNSCALED), workers=4),
        test=Pipeline(source=Latents(folder="data/imagenet256", split="validation", std=UNSCALED), workers=4),
        steps=7_000_000,
        batch_size=256,
        test_batch_size=256,
        log_every=100,
        preview_every=50_000,
        checkpoint_every=5000,
        mesh=MeshShape(replica=1, fsdp=-1),
        rule=Fsdp(axis="fsdp"),
    )


def config() -> Experiment:
    return latents(
        Diffusion(
            net=Learner(
                module=xl2(), optimizer=Optimizer(learning_rate=Constant(value=1e-4)), ema=(ConstantEma(decay=0.9999),)
            ),
            path=LinearBetas(),
            prediction=Direct(quantity=Eps()),
            noise_distribution=Uniform(),
            sampling=Sampling(solver=Ancestral(), schedule=Trailing(steps=250), guidance=ClassifierFree(scale=1.5)),
            condition_dropout=0.1,
            side=4,
        )
    )
