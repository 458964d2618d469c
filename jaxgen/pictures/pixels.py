"""The one place where 8-bit pixels become floats, floats the levels of a file, and points become pixels."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped

MARGIN = 1.02  # from the middle to the edge, over the distance of the farthest coordinate


def to_float(image: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """Map 8-bit pixels to f32 in [-1, 1]; floating-point values are returned unchanged.

    Batches are sent to the device as bytes, a quarter of the traffic, and become floats there.
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 127.5 - 1.0
    return image


def levels(image: Float[np.ndarray, " *s"]) -> Float32[np.ndarray, " *s"]:
    """Round values in [-1, 1] to the levels 0..255 that a file holds; those outside are clipped, NaN stays."""
    return np.clip(np.floor(image * np.float32(127.5) + np.float32(128)), 0, 255).astype(np.float32)


def grey_to_rgb(image: Shaped[Array, "*b h w c"]) -> Shaped[Array, "*b h w 3"]:
    """Repeat the first of one or two channels three times, so that a picture can be shown; else keep the first three.

    The second of two channels, and the fourth of four, is alpha.
    """
    return jnp.repeat(image[..., :1], 3, axis=-1) if image.shape[-1] < 3 else image[..., :3]


def reach_of(points: Float[Array, "n d"]) -> Float[Array, ""]:
    """Return the distance from the middle to the edge of a picture of all points, by their first two numbers."""
    finite = jnp.where(jnp.isfinite(points[:, :2]).all(1, keepdims=True), points[:, :2], 0.0)
    return jnp.maximum(jnp.abs(finite).max(), 1e-6) * MARGIN


def scatter(
    points: Float[Array, "n d"], size: int = 192, reach: float | Float[Array, ""] | None = None
) -> Float[Array, "{size} {size} 3"]:
    """Draw where points lie: dark where there are many, on white, y upwards; the middle is (0, 0).

    `reach` is the distance from the middle to the edge, `reach_of` all points by default. Of more than two numbers the
    first two are shown, a single one along the middle line. Points that are not finite are left out.
    """
    points = jnp.pad(points, ((0, 0), (0, max(0, 2 - points.shape[1]))))[:, :2]
    finite = jnp.isfinite(points).all(1)
    points = jnp.where(finite[:, None], points, 0.0)
    edge = reach_of(points) if reach is None else reach
    column, row = jnp.moveaxis(jnp.floor((points / edge * jnp.array([[1.0, -1.0]]) + 1.0) * size / 2), 1, 0).astype(int)
    inside = finite & (column >= 0) & (column < size) & (row >= 0) & (row < size)
    cell = jnp.where(inside, row * size + column, size * size)
    counts = jnp.zeros(size * size + 1).at[cell].add(1.0)[:-1].reshape(size, size, 1)
    ink = 1.0 - jnp.exp(-counts / jnp.maximum(1.0, len(points) / 4000))
    return 1.0 - ink * jnp.array([[[1.7, 1.2, 0.6]]])  # towards a dark blue
