"""FCN-16s on scenes: the budget of FCN-8s, with coarser maps and larger deconvolutions.

Promise: unverified
"""

from configs.segmentation import scenes_fcn8s
from jaxgen.experiment import Experiment


def config() -> Experiment:
    return scenes_fcn8s.scenes(scenes_fcn8s.fcn(16))
