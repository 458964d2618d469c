"""FCN-16s on scenes: the budget of FCN-8s, with coarser maps and larger deconvolutions.

Result: test mIoU 0.639 after 17.1 min on 2 CPU cores without AVX-512, of which it had one (uv run train.py
configs/segmentation/scenes_fcn16s.py)
"""

from configs.segmentation import scenes_fcn8s
from jaxgen.experiment import Experiment


def config() -> Experiment:
    return scenes_fcn8s.scenes(scenes_fcn8s.fcn(16))
