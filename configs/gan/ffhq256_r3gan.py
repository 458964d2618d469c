"""R3GAN on faces of 256×256 pixels from a folder: the recipe of arXiv:2501.05441, appendix D.

Promise: unverified (the paper: FID 2.75 and recall 0.49 after 200 million images, three weeks on 8 A6000)

Put FFHQ's pictures, reduced to 256×256, into folders below data/ffhq256, such as data/ffhq256/00000/00000.png. As in
the paper all of them are trained on, so that the test pipeline shows pictures that the discriminator knows.
"""

from jaxgen.adversarial.ada import Ada
from jaxgen.adversarial.augmentation import Fixed
from jaxgen.adversarial.penalties import R1, R2
from jaxgen.average import RampedHalfLife
from jaxgen.data.augment import Flip, Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Folder
from jaxgen.experiment import Experiment
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.objectives.gan import Gan
from jaxgen.optim import CosineRamp, Optimizer, RampedAdam

BATCH = 256  # real pictures in each of a step's two phases
IMAGES, BURN_IN = 200_000_000, 20_000_000
WIDTHS = (768, 768, 768, 768, 384, 192, 96)


def config() -> Experiment:
    steps, until = IMAGES // BATCH, BURN_IN / IMAGES
    optimizer = Optimizer(
        rate=CosineRamp(first=2e-4, last=5e-5, until=until),
        method=RampedAdam(b2=CosineRamp(first=0.9, last=0.99, until=until)),
    )
    gamma = CosineRamp(first=150.0, last=15.0, until=until)
    return Experiment(
        objective=Gan(
            generator=R3ganGenerator(widths=WIDTHS, full_precision_stages=3, dtype="bfloat16"),
            discriminator=R3ganDiscriminator(widths=WIDTHS, full_precision_stages=3, dtype="bfloat16"),
            generator_optimizer=optimizer,
            discriminator_optimizer=optimizer,
            penalties=(R1(gamma=gamma), R2(gamma=gamma)),
            augmentation=Ada(
                p=Fixed(p=CosineRamp(first=0.0, last=0.3, until=until)),
                brightness=0.5,
                contrast=0.5,
                lumaflip=0.5,
                hue=0.5,
                saturation=0.5,
                cutout=1.0,
            ),
            averages=(RampedHalfLife(steps=500_000 / BATCH, until=until * steps),),
        ),
        train=Pipeline(source=Folder("data/ffhq256"), transforms=(Unlabelled(), Flip()), workers=8),
        test=Pipeline(source=Folder("data/ffhq256"), transforms=(Unlabelled(),), workers=8),
        steps=steps,
        batch_size=2 * BATCH,
        test_batch_size=256,
        log_every=100,
        preview_every=5000,
        checkpoint_every=2000,
    )
