"""Values for the entries of a convolutional net's torch state_dict, by name: both sides of a golden test make them."""

import math

import numpy as np
from golden.weights import array


def value(name: str, shape: tuple[int, ...], last: str = "bn3") -> np.ndarray:
    """Make f32[shape] for the entry `name`, so that activations stay near 1 with the running statistics at work.

    Kernels take He's scale; statistics, scales and biases differ from their neutral values. The norm that ends a
    residual block is `last`: its scale is small, because blocks add up.
    """
    if name.endswith("running_var"):
        return 0.5 + np.abs(array(name, shape))
    if name.endswith(("running_mean", "bias")):
        return array(name, shape, 0.2)
    if len(shape) == 1:
        return (0.3 if f".{last}." in name else 1.0) + array(name, shape, 0.1)
    return array(name, shape, math.sqrt(2.0 / math.prod(shape[1:])))
