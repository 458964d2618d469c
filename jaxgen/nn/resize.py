"""Maps brought to another size: pools, bilinear resizing, and padding that a crop undoes."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Padding = Literal["SAME", "VALID"]  # SAME: a convolution keeps the side, a pool rounds it up; VALID: no padding


def bilinear(x: Float[Array, "b _ _ c"], height: int, width: int) -> Float[Array, "b _ _ c"]:
    """Resize to [b height width c] by linear interpolation between pixel centres ("half-pixel", align_corners=False).

    Without antialiasing: where it shrinks, it samples.
    """
    b, h, w, c = x.shape
    if (h, w) == (height, width):
        return x
    return jax.image.resize(x, (b, height, width, c), "bilinear", antialias=False)


def pad_to_multiple(x: Float[Array, "b _ _ c"], multiple: int) -> Float[Array, "b _ _ c"]:
    """Repeat the last row and column until height and width are multiples of `multiple`; `[:, :h, :w]` undoes it."""
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -h % multiple), (0, -w % multiple), (0, 0)), mode="edge")


def max_pool_2x2(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Take the largest of each 2×2 cells; height and width are even.

    The same as a max pool of stride 2, with a gradient that costs a tenth of that one's on a CPU and goes to exactly
    one cell. (`max` over an axis shares it among the cells that equal the result; where the compiler makes the map
    twice, rounded differently, no cell does, and the gradient is 0 / 0.)
    """
    for axis in (1, 2):
        pairs = x.reshape(*x.shape[:axis], x.shape[axis] // 2, 2, *x.shape[axis + 1 :])
        first, second = jnp.moveaxis(pairs, axis + 1, 0)
        x = jnp.where(first >= second, first, second)
    return x


def max_pool(x: Float[Array, "b h w c"], padding: Padding) -> Float[Array, "b h2 w2 c"]:
    """Take the maximum of each 2 × 2 block; SAME keeps an odd side's last row or column, VALID drops it."""
    h, w = x.shape[1:3]
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=-jnp.inf)
    else:
        x = x[:, : h - h % 2, : w - w % 2]
    return max_pool_2x2(x)
