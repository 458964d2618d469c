"""Halving and doubling maps with the box filter [1, 1], as the U-Nets of diffusion do."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError


def keep(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Return x as it is, where a block resamples nothing."""
    return x


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b h//2 w//2 c"]:
    """Average 2×2 cells; height and width are even."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def double(x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w c"]:
    """Repeat each cell 2×2."""
    b, h, w, c = x.shape
    cells = jnp.broadcast_to(x.reshape(b, h, 1, w, 1, c), (b, h, 2, w, 2, c))
    return cells.reshape(b, 2 * h, 2 * w, c)


def check_halvings(height: int, width: int, halvings: int) -> None:
    """Raise UserError unless both sides can be halved so many times."""
    multiple = 2**halvings
    if height % multiple or width % multiple:
        near = "×".join(f"{max(1, round(side / multiple)) * multiple}" for side in (height, width))
        raise UserError(
            f"u-net: an image of {height}×{width} cannot be halved {'once' if halvings == 1 else f'{halvings} times'}; "
            f"height and width must be multiples of {multiple}, such as {near}"
        )
