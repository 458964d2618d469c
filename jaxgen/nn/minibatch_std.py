"""A feature by which a discriminator sees how much the images of a batch differ (arXiv:1710.10196, section 3)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError


def minibatch_std(
    x: Float[Array, "b h w c"], group: int = 4, channels: int = 1
) -> Float[Array, "b h w {x.shape[3]+channels}"]:
    """Append `channels` constant maps: standard deviations over groups of samples, averaged over pixels and features.

    A group is of `group` samples, or of as many as the largest number below it that divides b. There are b / group
    groups, and sample i is in group i modulo their number, as in StyleGAN2's code: neighbours are in different ones.
    Each of the maps takes the average over its own share of the features. Groups are formed from the batch of all
    devices. Raises UserError if `group` is below 1 or `channels` does not divide c.
    """
    b, h, w, c = x.shape
    if group < 1 or channels < 1 or c % channels:
        raise UserError(
            f"minibatch_std: group {group} is below 1, or {c} features do not divide into {channels} shares"
        )
    size = next(n for n in range(min(group, b), 0, -1) if b % n == 0)
    y = x.astype(jnp.float32).reshape(size, b // size, h, w, channels, c // channels)
    y = y - y.mean(0, keepdims=True)
    deviation = jnp.sqrt(jnp.square(y).mean(0) + 1e-8).mean((1, 2, 4))
    maps = jnp.tile(deviation, (size, 1)).astype(x.dtype).reshape(b, 1, 1, channels)
    return jnp.concatenate([x, jnp.broadcast_to(maps, (b, h, w, channels))], axis=-1)
