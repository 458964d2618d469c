"""EDM's DDPM++ on CIFAR-10, unconditional: the recipe of arXiv:2206.00364, table 7.

Result: unverified (the paper: FID 1.97 at 35 evaluations, 200 million images, 2 days on 8 V100; its non-leaky
augmentation is not here, only flips are, with which its table 2 has 2.05 for the conditional net's predecessor)

Prepare the data once: uv run --extra prepare tfds build cifar10 --file_format=array_record
"""

from jaxgen.data.augment import Flip
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.diffusion.noise_distributions import LogNormal
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Heun
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.songunet import SongUNet
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    batch_size = 512
    steps = 200_000_000 // batch_size
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=SongUNet(
                    model_channels=128, multipliers=(2, 2, 2), blocks=4, attention=(16,), dropout=0.13, dtype="bfloat16"
                ),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-3, warmup=10_000_000 / 200_000_000, end_factor=1.0)),
                ema=(HalfLifeEma(steps=500_000 / batch_size, ramp=0.05),),
            ),
            path=Edm(),
            prediction=EdmPreconditioning(sigma_data=0.5),
            noise_distribution=LogNormal(mean=-1.2, std=1.2),
            sampling=Sampling(solver=Heun(), schedule=Rho(steps=18)),
        ),
        train=Pipeline(source=Tfds("cifar10", split="train", label=None), transforms=(Flip(),)),
        test=Pipeline(source=Tfds("cifar10", split="test", label=None)),
        steps=steps,
        batch_size=batch_size,
        test_batch_size=1000,
        log_every=100,
        preview_every=5000,
        checkpoint_every=2000,
    )
