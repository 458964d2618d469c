"""U-Net on scenes: skips at every stride up to the full resolution.

Promise: unverified
"""

import dataclasses

from configs.segmentation import scenes_fcn8s
from jaxgen.experiment import Experiment
from jaxgen.models.unet import Unet


def config() -> Experiment:
    base = scenes_fcn8s.config()
    objective = dataclasses.replace(base.objective, net=Unet(classes=11, widths=(8, 32, 64, 128)))
    return dataclasses.replace(base, objective=objective)
