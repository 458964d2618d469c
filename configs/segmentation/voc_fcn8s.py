"""FCN-8s with VGG-16 on PASCAL VOC 2012, in the paper's geometry (Shelhamer et al., arXiv:1605.06211).

Result: unverified (the paper's 65.5 mean IU starts from VGG-16 trained on ImageNet, which this does not)

Unpack VOC2012 into data/VOC2012. Pictures are not resized: they are laid on a canvas of 500x500, the largest size in
the data set, whose filling counts neither in the loss nor in the metric.
"""

from jaxgen.data.augment import Flip, PadTo
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import SegmentationFolder
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.fcn import PAPER, Fcn
from jaxgen.nn.backbones import VggBackbone
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant

CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def pictures(split: str) -> SegmentationFolder:
    return SegmentationFolder(
        images="data/VOC2012/JPEGImages",
        masks="data/VOC2012/SegmentationClass",
        ids=f"data/VOC2012/ImageSets/Segmentation/{split}.txt",
        classes=CLASSES,
    )


def config() -> Experiment:
    return Experiment(
        objective=Segmentation(
            net=Learner(
                module=Fcn(classes=21, stride=8, backbone=VggBackbone(), geometry=PAPER),
                # Section 4.3: minibatches of 20, momentum 0.9, rate 1e-4, doubled for biases, which do not decay.
                optimizer=Optimizer(
                    learning_rate=Constant(value=1e-4),
                    method=Sgd(momentum=0.9),
                    weight_decay=5e-4,
                    lr_multipliers=((r"bias$", 2.0),),
                ),
            ),
        ),
        train=Pipeline(source=pictures("train"), transforms=(PadTo(500, 500), Flip()), workers=4),
        test=Pipeline(source=pictures("val"), transforms=(PadTo(500, 500),), workers=4),
        steps=100_000,
        batch_size=20,
        test_batch_size=8,
        log_every=100,
        evaluate_every=4000,
        preview_every=2000,
        checkpoint_every=2000,
    )
