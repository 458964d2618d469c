"""FCN-8s on scenes: coloured digits over photographs, a class for every pixel.

Result: test mIoU 0.835 after 17.1 min on 2 CPU cores without AVX-512, of which it had one (uv run train.py
configs/segmentation/scenes_fcn8s.py)

A small backbone with batch norm stands in for VGG-16; heads, skips and learned deconvolutions are the paper's
(Shelhamer et al., arXiv:1605.06211), trained all at once and from scratch.
"""

from typing import Literal

import flax.linen as nn

from jaxgen.data.augment import Affine, Photometric
from jaxgen.data.batches import Pipeline
from jaxgen.data.scenes import Scenes
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.fcn import SAME, Fcn
from jaxgen.nn.backbones import SmallBackbone
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.muon import Muon
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine


def fcn(stride: Literal[8, 16, 32]) -> Fcn:
    return Fcn(
        classes=11,
        stride=stride,
        backbone=SmallBackbone(widths=(16, 48, 96, 128, 128), depths=(1, 1, 2, 1, 1)),
        hidden=(128,),
        window=3,
        dropout=0.1,
        skip_scale=(1.0, 1.0),
        geometry=SAME,
    )


def scenes(net: nn.Module) -> Experiment:
    return Experiment(
        objective=Segmentation(
            net=Learner(
                module=net,
                optimizer=Optimizer(learning_rate=Cosine(peak=3e-3), method=Muon(), weight_decay=1e-2, clip=1.0),
            ),
        ),
        train=Pipeline(source=Scenes(split="train"), transforms=(Affine(degrees=6.0, shift=0.0), Photometric())),
        test=Pipeline(source=Scenes(split="test")),
        steps=2200,
        batch_size=32,
        preview_every=550,
        checkpoint_every=200,
    )


def config() -> Experiment:
    return scenes(fcn(8))
