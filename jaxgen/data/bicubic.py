"""Bicubic downsampling as MATLAB's imresize does it, by which most papers on super-resolution make small pictures."""

import functools
import math

import numpy as np
from jaxtyping import Float, Int, UInt8


@functools.lru_cache(256)
def shrinking(n: int, factor: int) -> Float[np.ndarray, "m n"]:
    """Return the matrix that makes n pixels n // factor: antialiased, a = -1/2, pixels mirrored at the border."""
    made = np.zeros((n // factor, n))
    for i, row in enumerate(made):
        centre = (i + 0.5) * factor - 0.5
        first = math.floor(centre - 2 * factor)
        taps = np.arange(first, first + 4 * factor + 2)
        weights = cubic((centre - taps) / factor, -0.5)
        np.add.at(row, mirrored(taps, n), weights / weights.sum())
    return made


def mirrored(places: Int[np.ndarray, " k"], n: int) -> Int[np.ndarray, " k"]:
    """Return the pixels in 0..n-1 that lie at these places where a side of n is mirrored at both borders."""
    along = places % (2 * n)
    return np.where(along < n, along, 2 * n - 1 - along)


def shrunk(image: UInt8[np.ndarray, "h w c"], factor: int) -> UInt8[np.ndarray, "i j c"]:
    """Return a picture whose sides are divided by the factor, rounded to bytes."""
    rows, columns = (shrinking(n, factor) for n in image.shape[:2])
    small = np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float64), columns, optimize=True)
    return np.clip(np.floor(small + 0.5), 0, 255).astype(np.uint8)


def cubic(x: Float[np.ndarray, "*s"], a: float) -> Float[np.ndarray, "*s"]:
    """Keys' kernel (1981), whose slope at 1 is a."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))
