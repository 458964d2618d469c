"""Super-resolution by a GAN: the compact net of photos_x2_compact, now against a discriminator of each pixel.

Result: unverified

It starts from that run, so there are two commands: uv run train.py configs/super_resolution/photos_x2_compact.py, then
uv run train.py configs/super_resolution/photos_x2_gan.py
"""

import dataclasses

from configs.super_resolution.photos_x2_compact import NET, photographs
from jaxgen.adversarial.losses import RelativisticPairing
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.super_resolution import UNetDiscriminator
from jaxgen.objectives.restoration import Restoration
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.weights.trained import FromRun

ADAM = Optimizer(learning_rate=Constant(value=2e-4), method=Adam(b1=0.9, b2=0.99))
FASTER = dataclasses.replace(ADAM, learning_rate=Constant(value=1e-3))  # a discriminator that has seen nothing yet


def config() -> Experiment:
    made = photographs(
        Restoration(
            net=dataclasses.replace(NET, optimizer=ADAM, weights=FromRun("runs/photos_x2_compact")),
            discriminator=Learner(module=UNetDiscriminator(width=16), optimizer=FASTER),
            adversarial_loss=RelativisticPairing(),
            adversarial_weight=0.05,
        )
    )
    return dataclasses.replace(made, steps=1500)
