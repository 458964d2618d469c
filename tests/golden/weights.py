"""Weights and images that both sides of a golden test make for themselves, so that only outputs are stored.

Plain numpy: the reference scripts run where jax is not, the tests where torch is not.
"""

import math
import zlib

import numpy as np


def array(name: str, shape: tuple[int, ...], scale: float | None = None) -> np.ndarray:
    """Make f32[shape] of normal noise times `scale`: the same for the same name, whatever was made before it.

    Without a scale it is 1 / sqrt(fan_in), where fan_in is the product of shape[1:], as in torch's layouts
    (out, in, kh, kw) and (out, in); a vector's is 1.
    """
    if scale is None:
        scale = 1.0 / math.sqrt(math.prod(shape[1:]))
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return (scale * noise).astype(np.float32)


def image(height: int, width: int, channels: int = 3, batch: int = 2) -> np.ndarray:
    """Make f32[batch height width channels] of uniform noise in [-1, 1]."""
    name = f"image {batch} {height} {width} {channels}"
    noise = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1.0, 1.0, (batch, height, width, channels))
    return noise.astype(np.float32)


def he(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make f32[shape] for a net of ReLUs without norms: kernels of variance 2 / fan_in, biases of 0.01."""
    return array(name, shape, 0.1 if len(shape) == 1 else math.sqrt(2.0 / math.prod(shape[1:])))
