"""Values for the entries of a convolutional net's torch state_dict, by name: both sides of a golden test make them."""

import math

import numpy as np

from golden.weights import array


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make f32[shape] for the entry `name`, so that activations stay near 1 with the running statistics at work.

    Kernels take He's scale. Statistics and scales differ from their neutral values everywhere; the last scale of a
    residual block is small, because blocks add up.
    """
    if name.endswith("running_var"):
        return 0.5 + np.abs(array(name, shape))
    if name.endswith("running_mean"):
        return array(name, shape, 0.2)
    if name.endswith("bias"):
        return array(name, shape, 0.2)
    if len(shape) == 1:
        return (0.3 if name.endswith(LAST_NORMS) else 1.0) + array(name, shape, 0.1)
    return array(name, shape, math.sqrt(2.0 / math.prod(shape[1:])))


LAST_NORMS = ("bn3.weight", "0.bn2.weight", "1.bn2.weight")  # bottlenecks; the two basic blocks of a ResNet-18 stage
