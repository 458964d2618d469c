"""U-Net on the Oxford-IIIT pets at 128x128, from scratch: pet, background and the border between them.

Result: unverified (100 epochs; needs an accelerator)

Prepare the data once: uv run --extra prepare tfds build oxford_iiit_pet --file_format=array_record
Masks are measured at 128x128, as are the published U-Nets of this size.
"""

from jaxgen.data.augment import Flip, Photometric, RandomResizedCrop, Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.unet import Unet
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.ema import WarmupEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine
from jaxgen.supervised.losses import CrossEntropy, Dice, Sum

CLASSES = ("background", "pet", "border")
LOOKUP = (255, 1, 0, 2)  # the files hold 1 = pet, 2 = background, 3 = border


def config() -> Experiment:
    pets = Tfds("oxford_iiit_pet", split="train", mask="segmentation_mask", lookup=LOOKUP, classes=CLASSES)
    test = Tfds("oxford_iiit_pet", split="test", mask="segmentation_mask", lookup=LOOKUP, classes=CLASSES)
    return Experiment(
        objective=Segmentation(
            net=Learner(
                module=Unet(classes=3, widths=(32, 64, 128, 256, 512), dtype="bfloat16"),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-3), weight_decay=1e-2, clip=1.0),
                ema=(WarmupEma(decay=0.999),),
            ),
            loss=Sum(terms=((1.0, CrossEntropy()), (1.0, Dice()))),
        ),
        train=Pipeline(
            source=pets,
            transforms=(RandomResizedCrop(128, 128, scale=(0.3, 1.0)), Flip(), Photometric()),
            workers=4,
        ),
        test=Pipeline(source=test, transforms=(Resize(128, 128),)),
        steps=100 * 3680 // 64,
        batch_size=64,
        evaluate_every=570,
        preview_every=570,
        checkpoint_every=570,
    )
