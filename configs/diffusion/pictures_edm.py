"""EDM at 64×64 on a folder of pictures of your own, `pictures/`.

Result: unverified (it depends on your pictures; docs/first_day.md)

uv run train.py configs/diffusion/pictures_edm.py --train.source.path DIR --test.source.path DIR
"""

from jaxgen.data.augment import Flip, Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Images
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
    return Experiment(
        objective=Diffusion(
            net=Learner(
                module=SongUNet(model_channels=16, multipliers=(1, 2, 4, 4), blocks=1, attention=(16,), dropout=0.1),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-3), clip=1.0),
                ema=(HalfLifeEma(steps=200.0),),
            ),
            path=Edm(),
            prediction=EdmPreconditioning(sigma_data=0.5),
            noise_distribution=LogNormal(mean=-0.8, std=1.2),  # larger images hide their noise better: more of it
            sampling=Sampling(solver=Heun(), schedule=Rho(steps=18)),
        ),
        train=Pipeline(source=Images("pictures"), transforms=(Resize(64, 64), Flip())),
        test=Pipeline(source=Images("pictures"), transforms=(Resize(64, 64),)),
        steps=3000,
        batch_size=16,
        preview_every=200,
    )
