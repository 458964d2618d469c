"""What both sides of the U-Nets' golden tests are made of: their sizes, their inputs, and values for the state_dict."""

import dataclasses
import math

import numpy as np
from golden.weights import array

NOISE = np.array([-1.3, 0.8], np.float32)


@dataclasses.dataclass(frozen=True)
class Setup:
    """A tiny net and the size of the pictures it is tried on; the reference names its parts by the height."""

    height: int
    width: int
    channels: int
    classes: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    model_channels: int = 16
    heads: int = 1
    """Heads at the bottom and wherever else there is attention: their size is the bottom's width over this."""

    @property
    def head_channels(self) -> int:
        return self.model_channels * self.multipliers[-1] // self.heads


SETUPS = {
    "classes": Setup(16, 16, 3, classes=4, multipliers=(1, 2), blocks=1, attention=(8,)),
    "plain": Setup(8, 12, 1, classes=0, multipliers=(1, 2, 2), blocks=1, attention=(4,), heads=2),
}


def label(classes: int) -> np.ndarray:
    """Weights f32[2 classes + 1]: the second class, then the null class."""
    return np.eye(classes + 1, dtype=np.float32)[[1, classes]]


def song(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make f32[shape] for the entry `name` of a net with norms and biases."""
    if len(shape) == 1:
        return (1.0 if "norm" in name and name.endswith("weight") else 0.0) + array(name, shape, 0.1)
    return array(name, shape)


def edm2(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make f32[shape] for the entry `name` of a net whose weights are normalised; so small that the epsilon counts."""
    if not shape:
        return np.float32(0.6)
    return array(name, shape, 2 * math.pi if len(shape) == 1 else 0.03)
