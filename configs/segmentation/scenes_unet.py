"""U-Net on scenes: skips at every stride up to the full resolution.

Result: unverified (1,100 steps)
"""

import dataclasses

from configs.segmentation import scenes_fcn8s
from jaxgen.experiment import Experiment
from jaxgen.models.unet import Unet


def config() -> Experiment:
    # A step costs twice an FCN's.
    return dataclasses.replace(scenes_fcn8s.scenes(Unet(classes=11, widths=(8, 32, 64, 128))), steps=1100)
