"""DeepLabV3+ on ResNet-50 on ADE20K, by the schedule of its 43.95 mIoU with an ImageNet start in mmseg.

Result: unverified (160,000 steps from scratch; needs several accelerators)

Unpack ADEChallengeData2016 into data/. It is measured on pictures whose short side is 512, their middle 512x1024 at
the most, by a sliding window: not at the masks' own size, so not to be compared with the benchmark's numbers.
"""

from jaxgen.data.ade20k import CLASSES, LOOKUP
from jaxgen.data.augment import CenterCrop, Flip, Photometric, RandomScaleCrop, ResizeShort
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import SegmentationFolder
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.deeplab import DeepLabV3Plus
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Poly
from jaxgen.supervised.inference import Sliding


def pictures(split: str) -> SegmentationFolder:
    root = "data/ADEChallengeData2016"
    return SegmentationFolder(f"{root}/images/{split}", f"{root}/annotations/{split}", classes=CLASSES, lookup=LOOKUP)


def config() -> Experiment:
    return Experiment(
        objective=Segmentation(
            net=Learner(
                module=DeepLabV3Plus(classes=150, depth=50, output_stride=8, rates=(12, 24, 36), dtype="bfloat16"),
                optimizer=Optimizer(
                    learning_rate=Poly(peak=0.01, end_factor=0.01), method=Sgd(momentum=0.9), weight_decay=5e-4
                ),
            ),
            inference=Sliding(height=512, width=512, stride=(341, 341)),
        ),
        train=Pipeline(
            source=pictures("training"),
            transforms=(ResizeShort(512), RandomScaleCrop(512, 512, max_share=0.75), Flip(), Photometric()),
            workers=8,
        ),
        test=Pipeline(
            source=pictures("validation"),
            transforms=(ResizeShort(512), CenterCrop(512, 1024)),
            workers=4,
        ),
        steps=160_000,
        batch_size=16,
        test_batch_size=4,
        log_every=50,
        evaluate_every=16_000,
        preview_every=4000,
        checkpoint_every=2000,
    )
