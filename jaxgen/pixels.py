"""The one place where the 8-bit pixels of a batch become floats."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def to_float(image: Shaped[Array, "..."]) -> Float[Array, "..."]:
    """Map 8-bit pixels to f32 in [-1, 1]; anything that is floating already passes as it is.

    Batches travel to the device as bytes, a quarter of the traffic, and are widened there.
    """
    if image.dtype == jnp.uint8:
        return image.astype(jnp.float32) / 127.5 - 1.0
    return image


def grey_to_rgb(image: Shaped[Array, "*b h w c"]) -> Shaped[Array, "*b h w 3"]:
    """Repeat a single channel three times, so that a picture can be shown; three channels pass as they are."""
    return jnp.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
