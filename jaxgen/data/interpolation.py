"""Pictures of another size as PyTorch's interpolate makes them: by area, bilinear or bicubic, without antialiasing."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32

from jaxgen.data.bicubic import cubic

Mode = Literal["area", "bilinear", "bicubic"]
MODES: tuple[Mode, ...] = get_args(Mode)


def resized(image: Float[np.ndarray, "h w c"], size: tuple[int, int], mode: Mode) -> Float32[np.ndarray, "i j c"]:
    """Return a picture of another height and width.

    None but area looks at more pixels as it shrinks, so that fine detail aliases. Bicubic has a = -3/4, and the pixels
    at the border go on beyond it.
    """
    rows, columns = (interpolating(n, m, mode) for n, m in zip(image.shape[:2], size, strict=True))
    return np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float32), columns, optimize=True)


def interpolating(n: int, m: int, mode: Mode) -> Float32[np.ndarray, "m n"]:
    """Return the matrix that makes n pixels m."""
    made = np.zeros((m, n), np.float32)
    place = np.arange(m)
    if mode == "area":
        first, last = place * n // m, -(-(place + 1) * n // m)  # whole pixels, one at least
        inside = (np.arange(n) >= first[:, None]) & (np.arange(n) < last[:, None])
        return (inside / inside.sum(1, keepdims=True)).astype(np.float32)
    centre = (place + 0.5) * n / m - 0.5
    if mode == "bilinear":
        centre = np.maximum(centre, 0)
        taps = np.floor(centre).astype(int)[:, None] + np.arange(2)
        weights = np.maximum(0, 1 - np.abs(centre[:, None] - taps))
    else:
        taps = np.floor(centre).astype(int)[:, None] + np.arange(-1, 3)
        weights = cubic(centre[:, None] - taps, -0.75)
    np.add.at(made, (place[:, None], np.clip(taps, 0, n - 1)), weights)
    return made
