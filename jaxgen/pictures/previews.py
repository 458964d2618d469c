"""What the objectives that make examples show of them."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, scatter

REAL, FALSE = (-0.2, 0.55, 0.1), (0.9, -0.3, -0.4)  # green and red, in [-1, 1]


def grid(x: Float[Array, "n *s"], columns: int) -> Panels:
    """Lay pictures out in rows; of points, one picture of where they lie."""
    if x.ndim == 2:
        return Panels(images=scatter(x)[None, None])
    rows = grey_to_rgb(jnp.clip(x, -1.0, 1.0))
    return Panels(images=rows.reshape(-1, columns, *rows.shape[1:]))


def framed(x: Float[Array, "n h w c"], real: Float[Array, " n"]) -> Float[Array, "n h2 w2 3"]:
    """Frame each picture in green, where it was found likely (1) to be real, to red, where unlikely (0)."""
    wide = max(1, x.shape[1] // 8)
    sides = ((0, 0), (wide, wide), (wide, wide), (0, 0))
    share = real.reshape(-1, 1, 1, 1)
    frame = share * jnp.array([[[REAL]]]) + (1 - share) * jnp.array([[[FALSE]]])
    inside = jnp.pad(jnp.ones((*x.shape[:3], 1)), sides)
    return jnp.where(inside > 0, jnp.pad(grey_to_rgb(jnp.clip(x, -1.0, 1.0)), sides), frame)


def plane(reach: Float[Array, ""], cells: int) -> Float[Array, "n 2"]:
    """Return the middles of cells × cells squares from -reach to reach, row by row from the top."""
    line = (jnp.arange(cells) + 0.5) / cells * 2 - 1
    y, x = jnp.meshgrid(-line, line, indexing="ij")
    return reach * jnp.stack([x.ravel(), y.ravel()], axis=1)
