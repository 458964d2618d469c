"""U-Net at 64×64 on pictures of your own: `pictures/images/a.jpg` has its mask in `pictures/masks/a.png`.

Result: unverified (it depends on your pictures; docs/first_day.md)

uv run train.py configs/segmentation/pictures_unet.py, with --train.source.images DIR --train.source.masks DIR and the
same for test where they lie elsewhere. For more classes than two: --train.source.classes A B C, the same for test, and
--objective.net.module.classes 3. About a quarter of the pictures, which their names decide, is kept for the test.
"""

from jaxgen.data.augment import Flip, Photometric, RandomResizedCrop, Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import SegmentationFolder
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.unet import Unet
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.ema import WarmupEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine
from jaxgen.supervised.losses import CrossEntropy, Dice, Sum

CLASSES = ("background", "thing")


def config() -> Experiment:
    train = SegmentationFolder("pictures/images", "pictures/masks", classes=CLASSES, split="train", share=0.75)
    test = SegmentationFolder("pictures/images", "pictures/masks", classes=CLASSES, split="test", share=0.75)
    return Experiment(
        objective=Segmentation(
            net=Learner(
                module=Unet(classes=len(CLASSES), widths=(16, 32, 64, 128)),
                optimizer=Optimizer(learning_rate=Cosine(peak=1e-3), weight_decay=1e-2, clip=1.0),
                ema=(WarmupEma(decay=0.99),),
            ),
            loss=Sum(terms=((1.0, CrossEntropy()), (1.0, Dice()))),
        ),
        train=Pipeline(source=train, transforms=(RandomResizedCrop(64, 64, scale=(0.5, 1.0)), Flip(), Photometric())),
        test=Pipeline(source=test, transforms=(Resize(64, 64),)),
        steps=500,
        batch_size=16,
    )
