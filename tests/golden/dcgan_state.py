"""What make_dcgan.py and the tests agree on: the small nets' sizes, their inputs, and a value for each entry."""

import numpy as np
from golden.weights import array, image

LATENT, CLASSES, SIDE = 6, 3, 16
GENERATOR, DISCRIMINATOR = (8, 5), (4, 7)  # widths of DCGAN
WIDTH = 5  # of SNGAN
LABEL = np.array([2, 0, 1, 2])
Z = array("z", (4, LATENT), 1.0)
IMAGE = image(SIDE, SIDE, batch=4)
COTANGENT = array("cotangent", (4,), 1.0)  # the logits' weights in the sum that is differentiated


def value(net: str, entry: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the entry of a net's state by torch's name for it."""
    name = f"{net}.{entry}"
    if entry.endswith("sn_u"):
        u = array(name, shape, 1.0)
        return u / np.linalg.norm(u)
    if entry.endswith("running_var"):
        return 0.5 + array(name, shape, 1.0) ** 2
    if entry.endswith(("running_mean", "bias")):
        return array(name, shape, 0.2)
    if len(shape) == 1:
        return 1.0 + array(name, shape, 0.2)
    return array(name, shape)
