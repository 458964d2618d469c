"""The net of lpips.npz and its weights by LPIPS's names, made alike on both sides."""

import numpy as np
from golden.weights import array

WIDTHS, DEPTHS, SIDES = (4, 6, 8, 8, 8), (2, 2, 3, 3, 3), (33, 48)


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Kernels of variance 1 / fan_in and small biases; weights of channels are positive, as LPIPS keeps them."""
    if name.startswith("lin"):
        return np.abs(array(name, shape))
    return array(name, shape) if len(shape) > 1 else array(name, shape, 0.1)
