"""CUT on horses and zebras, 256×256, with the published losses and rates: a horse becomes a zebra.

Result: unverified (the paper's FID is 45.5, on 120 and 140 pictures; users of its code report 61.7 and 68)

FastCUT is this with contrast=10, identity=0, mirrored=0.5, and 200 epochs, of which the rate is held for 150. Two
things are CycleGAN's, where CUT's code has others: kernels start from a deviation of 0.02, not Xavier's times 0.02, and
the discriminator halves by strides alone, without filters.
"""

from configs.translation.monet2photo_cyclegan import pictures
from jaxgen.data.batches import Pipeline
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.patch_heads import PatchHeads
from jaxgen.models.patchgan import Instance, PatchGan
from jaxgen.models.resnet_generator import Antialiased, ResnetGenerator
from jaxgen.objectives.contrastive_translation import ContrastiveTranslation
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Held

EPOCHS, ZEBRAS = 400, 1334


def config() -> Experiment:
    optimizer = Optimizer(learning_rate=Held(peak=2e-4, hold=0.5), method=Adam(b1=0.5))
    return Experiment(
        objective=ContrastiveTranslation(
            to_b=Learner(module=ResnetGenerator(resampling=Antialiased()), optimizer=optimizer),
            discriminator=Learner(module=PatchGan(norm=Instance()), optimizer=optimizer),
            heads=Learner(module=PatchHeads(), optimizer=optimizer),
        ),
        train=Pipeline(source=pictures("cycle_gan/horse2zebra", "trainA", "trainB"), workers=4),
        test=Pipeline(source=pictures("cycle_gan/horse2zebra", "testA", "testB", learn=False), workers=4),
        steps=EPOCHS * ZEBRAS,
        batch_size=1,
        test_batch_size=8,
        log_every=100,
        preview_every=2000,
        checkpoint_every=5000,
    )
