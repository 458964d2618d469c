"""Affine maps of images, each by a matrix of its own: whole pixels moved, or resampled with little aliasing.

`inverse` maps a place in the result, (x, y, 1) in pixels from the middle, x to the right and y down, to the place in
the image that is seen there. Beyond its edges the image continues as its own reflection.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

# The low-pass filter of the wavelet sym6 (Daubechies, Ten Lectures on Wavelets, table 8.3): orthogonal to its own even
# shifts, so that doubling and halving an image with it gives the image back.
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
REACH = len(SYM6) // 4  # pixels, of the image's own size, that the filter reaches to each side


def move(images: Float[Array, "b h w c"], inverse: Float[Array, "b 3 3"]) -> Float[Array, "b h w c"]:
    """Move whole pixels: exact where `inverse` flips, turns by quarters and shifts by integers."""
    _, height, width, _ = images.shape
    x, y = _sources(inverse, jnp.arange(width) - (width - 1) / 2, jnp.arange(height) - (height - 1) / 2)
    row, column = jnp.rint(y + (height - 1) / 2).astype(int), jnp.rint(x + (width - 1) / 2).astype(int)
    return _at(images, _reflected(row, height), _reflected(column, width)).reshape(images.shape)


def resample(images: Float[Array, "b h w c"], inverse: Float[Array, "b 3 3"]) -> Float[Array, "b h w c"]:
    """Double the images, look up between their pixels linearly, and halve them (arXiv:2006.06676, appendix B.2).

    Reflections continue for one side less a pixel, and at least for what the filter needs. The paper's pipeline does
    not reflect further either; it reflects as far as the batch at hand needs, which has no fixed shape. Beyond is 0.
    """
    b, height, width, c = images.shape
    canvas = _both(images, _doubling(height), _doubling(width))
    # Places of the doubled result, with a margin for the filter that halves it. In the doubled image the filter's
    # middle, its sixth tap, is half a pixel away from the middle of all twelve.
    wide, high = 2 * (width + 2 * REACH), 2 * (height + 2 * REACH)
    x, y = _sources(inverse, (jnp.arange(wide) + 1.0) / 2 - wide / 4, (jnp.arange(high) + 1.0) / 2 - high / 4)
    x, y = 2 * x + canvas.shape[2] / 2 - 1.0, 2 * y + canvas.shape[1] / 2 - 1.0
    left, top = jnp.floor(x), jnp.floor(y)
    seen = jnp.zeros((b, high * wide, c), images.dtype)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (1.0 - jnp.abs(y - top - row)) * (1.0 - jnp.abs(x - left - column))
        seen += weight[..., None] * _at(canvas, top.astype(int) + row, left.astype(int) + column)
    return _both(seen.reshape(b, high, wide, c), _halving(height), _halving(width))


def _both(images: Float[Array, "b i j c"], rows: np.ndarray, columns: np.ndarray) -> Float[Array, "b h w c"]:
    """Map columns of pixels by the matrix `rows`, then rows of pixels by `columns`."""
    apply = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)  # a GPU's default keeps three digits
    return apply("wj,bhjc->bhwc", columns, apply("hi,bijc->bhjc", rows, images))


def _sources(
    inverse: Float[Array, "b 3 3"], x: Float[Array, " w"], y: Float[Array, " h"]
) -> tuple[Float[Array, "b h*w"], Float[Array, "b h*w"]]:
    """Return where in the image, (x, y), each place of a grid comes from, row by row."""
    # No matrix product: accelerators round its factors to fewer bits than a place needs.
    x, y = (grid.reshape(1, -1) for grid in jnp.meshgrid(x, y))
    a, b = inverse[:, 0, :, None], inverse[:, 1, :, None]
    return a[:, 0] * x + a[:, 1] * y + a[:, 2], b[:, 0] * x + b[:, 1] * y + b[:, 2]


def _at(images: Float[Array, "b h w c"], row: Int[Array, "b n"], column: Int[Array, "b n"]) -> Float[Array, "b n c"]:
    """Look up pixels; outside there are zeros."""
    b, height, width, c = images.shape
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    place = jnp.where(inside, row * width + column, 0)
    pick = jax.vmap(lambda pixels, place: pixels.at[place].get(mode="promise_in_bounds"))
    return jnp.where(inside[..., None], pick(images.reshape(b, height * width, c), place), 0.0)


def _reflected(index: Int[Array, "*s"], size: int) -> Int[Array, "*s"]:
    """Fold an index into [0, size) by reflections at the first and the last pixel, as often as it takes."""
    period = max(1, 2 * (size - 1))
    index = index % period
    return jnp.minimum(index, period - index)


@functools.cache
def _doubling(size: int) -> np.ndarray:
    """Make f32[2·(size + 2·margin), size], which reflects a line of pixels at both ends and doubles it."""
    margin = max(size - 1, 2 * REACH)
    matrix = np.zeros((2 * (size + 2 * margin), size))
    for i, source in enumerate(np.pad(np.arange(size), margin, mode="reflect")):
        for tap, value in enumerate(SYM6):
            if 0 <= (n := 2 * i + tap - 5) < len(matrix):
                matrix[n, source] += 2 * value / sum(SYM6)
    return matrix.astype(np.float32)


@functools.cache
def _halving(size: int) -> np.ndarray:
    """Make f32[size, 2·(size + 2·REACH)], which halves a line of pixels and crops it by REACH at both ends."""
    matrix = np.zeros((size, 2 * (size + 2 * REACH)))
    for i in range(size):
        matrix[i, 2 * i + 1 : 2 * i + 1 + len(SYM6)] = np.array(SYM6) / sum(SYM6)
    return matrix.astype(np.float32)
