"""R3GAN on faces of 256×256 pixels from a folder: the recipe of arXiv:2501.05441, appendix D.

Result: unverified (the paper: FID 2.75 and recall 0.49 after 200 million images, three weeks on 8 A6000)

Put FFHQ's images, reduced to 256×256, into folders below data/ffhq256, such as data/ffhq256/00000/00000.png. As in
the paper, training uses all of them, so that the test pipeline shows images that the discriminator knows.
"""

from configs.gan.cifar10_r3gan import game
from jaxgen.data.augment import Flip, Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Folder
from jaxgen.experiment import Experiment
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator

BATCH = 256  # real images in each of a step's two updates
STEPS = 200_000_000 // BATCH
WIDTHS = (768, 768, 768, 768, 384, 192, 96)


def config() -> Experiment:
    return Experiment(
        objective=game(
            R3ganGenerator(widths=WIDTHS, full_precision_stages=3, dtype="bfloat16"),
            R3ganDiscriminator(widths=WIDTHS, full_precision_stages=3, dtype="bfloat16"),
            steps=STEPS,
            batch=BATCH,
            gamma=150.0,
            augmented=0.3,
            half_life=500_000,
        ),
        train=Pipeline(source=Folder("data/ffhq256"), transforms=(Unlabelled(), Flip()), workers=8),
        test=Pipeline(source=Folder("data/ffhq256"), transforms=(Unlabelled(),), workers=8),
        steps=STEPS,
        batch_size=2 * BATCH,
        test_batch_size=256,
        log_every=100,
        preview_every=5000,
        checkpoint_every=2000,
    )
