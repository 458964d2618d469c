"""The one place where the 8-bit pixels of a batch become floats, and points become pixels."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def to_float(image: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """Map 8-bit pixels to f32 in [-1, 1]; floating-point values are returned unchanged.

    Batches are sent to the device as bytes, a quarter of the traffic, and become floats there.
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 127.5 - 1.0
    return image


def grey_to_rgb(image: Shaped[Array, "*b h w c"]) -> Shaped[Array, "*b h w 3"]:
    """Repeat a single channel three times, so that a picture can be shown; three channels are returned unchanged."""
    return jnp.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]


def scatter(
    points: Float[Array, "n 2"], size: int = 192, reach: float | Float[Array, ""] | None = None
) -> Float[Array, "{size} {size} 3"]:
    """Draw where points lie: dark where there are many, on white, y upwards; the middle is (0, 0).

    `reach` is the distance from the middle to the edge; None shows all points.
    """
    edge = jnp.maximum(jnp.abs(points).max(), 1e-6) * 1.02 if reach is None else reach
    column, row = jnp.moveaxis(jnp.floor((points / edge * jnp.array([[1.0, -1.0]]) + 1.0) * size / 2), 1, 0).astype(int)
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    cell = jnp.where(inside, row * size + column, size * size)
    counts = jnp.zeros(size * size + 1).at[cell].add(1.0)[:-1].reshape(size, size, 1)
    ink = 1.0 - jnp.exp(-counts / jnp.maximum(1.0, len(points) / 4000))
    return 1.0 - ink * jnp.array([[[1.7, 1.2, 0.6]]])  # towards a dark blue
