"""EDM2-S on ImageNet 64×64 in pixels: magnitude-preserving U-Net, power-function averages (arXiv:2312.02696).

Result: unverified (the paper: FID 1.58 at 63 evaluations, 2^20 × 2048 images; needs a pod)

Prepare the data once: uv run --extra prepare tfds build imagenet_resized/64x64 --file_format=array_record
"""

from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.diffusion.noise_distributions import LogNormal
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Heun
from jaxgen.diffusion.weighting import Uncertainty, Unweighted
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.edm2 import WEIGHTS, Edm2UNet
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import PowerEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import InverseSqrt
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Fsdp


def config() -> Experiment:
    batch_size = 2048
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=Edm2UNet(classes=1000, dtype="bfloat16"),
                # The peak after ten million images of warm-up, and no decay.
                optimizer=Optimizer(
                    learning_rate=InverseSqrt(peak=0.01, hold=35_000, warmup=10_000_000 // batch_size),
                    method=Adam(b1=0.9, b2=0.99),
                    forced_weight_norm=WEIGHTS,
                ),
                ema=(PowerEma(width=0.05), PowerEma(width=0.1)),
            ),
            path=Edm(),
            prediction=EdmPreconditioning(sigma_data=0.5),
            noise_distribution=LogNormal(mean=-0.8, std=1.6),
            weighting=Uncertainty(base=Unweighted()),
            sampling=Sampling(solver=Heun(), schedule=Rho(steps=32)),
        ),
        train=Pipeline(source=Tfds("imagenet_resized/64x64", split="train"), workers=8),
        test=Pipeline(source=Tfds("imagenet_resized/64x64", split="validation"), workers=8),
        steps=2**31 // batch_size,
        batch_size=batch_size,
        test_batch_size=512,
        log_every=100,
        preview_every=4096,
        checkpoint_every=2048,
        snapshot_every=4096,
        mesh=MeshShape(replica=1, fsdp=-1),
        rule=Fsdp(axis="fsdp"),
    )
