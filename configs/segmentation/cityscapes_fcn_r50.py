"""FCN-R50, dilated to output stride 8, on Cityscapes, by the recipe of its 72.25 mIoU with an ImageNet start in mmseg.

Result: unverified (40,000 steps from scratch; needs several accelerators)

Prepare the data once, from the archives that their owners give out:
uv run --extra prepare tfds build cityscapes/semantic_segmentation --file_format=array_record
"""

from jaxgen.data.augment import Flip, Photometric, RandomScaleCrop
from jaxgen.data.batches import Pipeline
from jaxgen.data.cityscapes import CLASSES, TRAIN_IDS
from jaxgen.data.tfds import Tfds
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.fcn_resnet import FcnResnet
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Poly


def streets(split: str) -> Tfds:
    return Tfds(
        "cityscapes/semantic_segmentation",
        split=split,
        image="image_left",
        mask="segmentation_label",
        lookup=TRAIN_IDS,
        classes=CLASSES,
    )


def config() -> Experiment:
    return Experiment(
        objective=Segmentation(
            net=Learner(
                module=FcnResnet(classes=19, depth=50, dtype="bfloat16"),
                optimizer=Optimizer(
                    learning_rate=Poly(peak=0.01, end_factor=0.01), method=Sgd(momentum=0.9), weight_decay=5e-4
                ),
            ),
            aux_weight=0.4,
        ),
        train=Pipeline(
            source=streets("train"),
            transforms=(RandomScaleCrop(512, 1024, max_share=0.75), Flip(), Photometric()),
            workers=8,
        ),
        test=Pipeline(source=streets("validation"), workers=4),
        steps=40_000,
        batch_size=8,
        test_batch_size=1,
        log_every=50,
        evaluate_every=4000,
        preview_every=2000,
        checkpoint_every=1000,
    )
