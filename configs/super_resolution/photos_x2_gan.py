"""Super-resolution by a GAN: the compact net of photos_x2_compact, now against a discriminator of patches.

Result: psnr_y 37.86 dB, ssim_y 0.933 on squares of four other photographs (bicubic: 37.90 and 0.923; before the game:
39.50 and 0.945), and of the truth's fine detail 0.87 (0.31; 0.66), after 2.8 min on 2 CPU cores that had other work
too, beside that of photos_x2_compact

It starts from that run, so there are two commands: uv run train.py configs/super_resolution/photos_x2_compact.py, then
uv run train.py configs/super_resolution/photos_x2_gan.py
"""

import dataclasses

from configs.super_resolution.photos_x2_compact import NET, photographs
from jaxgen.adversarial.losses import RelativisticPairing
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.patchgan import Instance, PatchGan
from jaxgen.objectives.restoration import Restoration
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.weights.trained import FromRun

ADAM = Optimizer(learning_rate=Constant(value=5e-5), method=Adam(b1=0.0, b2=0.99))
FASTER = dataclasses.replace(ADAM, learning_rate=Constant(value=5e-4))  # a discriminator that has seen nothing yet


def config() -> Experiment:
    made = photographs(
        Restoration(
            net=dataclasses.replace(NET, optimizer=ADAM, weights=FromRun("runs/photos_x2_compact")),
            discriminator=Learner(module=PatchGan(width=32, halvings=1, norm=Instance()), optimizer=FASTER),
            adversarial_loss=RelativisticPairing(),
            adversarial_weight=0.05,
        )
    )
    return dataclasses.replace(made, steps=300)
