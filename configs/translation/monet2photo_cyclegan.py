"""CycleGAN on photographs and paintings by Monet, 256×256, with the published numbers: a is a photograph, b a painting.

Result: unverified (nobody has published a number that can be compared; needs a GPU for days)

`jaxgen predict RUN photo.jpg --out DIR` paints, and `--to a` makes photographs of paintings. Later work adds EMAs of
the generators and a zero-centred penalty (arXiv:2303.16280): `ema` and `penalties`.
"""

from jaxgen.data.augment import Flip, PadCrop, Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.data.unpaired import Unpaired
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.patchgan import Instance, PatchGan
from jaxgen.models.resnet_generator import ResnetGenerator
from jaxgen.objectives.unpaired_translation import UnpairedTranslation
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Held

EPOCHS, PHOTOGRAPHS = 200, 6287  # an epoch sees each picture of the larger domain once


def config() -> Experiment:
    optimizer = Optimizer(learning_rate=Held(peak=2e-4, hold=0.5), method=Adam(b1=0.5))
    generator = Learner(module=ResnetGenerator(), optimizer=optimizer)
    discriminator = Learner(module=PatchGan(norm=Instance()), optimizer=optimizer)
    return Experiment(
        objective=UnpairedTranslation(
            to_a=generator, to_b=generator, discriminator_a=discriminator, discriminator_b=discriminator
        ),
        train=Pipeline(source=pictures("cycle_gan/monet2photo", "trainB", "trainA"), workers=4),
        test=Pipeline(source=pictures("cycle_gan/monet2photo", "testB", "testA", learn=False), workers=4),
        steps=EPOCHS * PHOTOGRAPHS,
        batch_size=1,
        test_batch_size=8,
        log_every=100,
        preview_every=2000,
        checkpoint_every=5000,
    )


def pictures(name: str, a: str, b: str, *, learn: bool = True) -> Unpaired:
    """Return two splits of a data set as two domains, cropped and mirrored at random to learn from."""
    moves = (Resize(286, 286), PadCrop(256, 256, pad=0), Flip()) if learn else (Resize(256, 256),)
    sides = (Pipeline(source=Tfds(name, split=split, label=None), transforms=moves) for split in (a, b))
    return Unpaired(a=next(sides), b=next(sides))
