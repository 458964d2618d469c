"""The nets of super_resolution.npz and their weights by BasicSR's names, made alike on both sides."""

import numpy as np
from golden.weights import array

FEATURES, GROWTH, BLOCKS, WIDTH = 8, 4, 2, 4
SIDES = (8, 12)
NETS = ("rrdb1", "rrdb2", "rrdb4", "srresnet1", "srresnet2", "srresnet3", "srresnet4", "compact2", "compact3")


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels of variance 1 / fan_in, small biases, and slopes of about a quarter."""
    if len(shape) > 1:
        return array(name, shape)
    return (
        0.25 + array(name, shape, 0.1)
        if len(name.split(".")) == 3 and name.endswith("weight")
        else array(name, shape, 0.1)
    )
