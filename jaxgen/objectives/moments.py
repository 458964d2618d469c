"""Latents as an autoencoder gives them: a normal distribution for each, of some mean and variance.

Moments f32[b i j 2c] are c means, then the logarithms of c variances.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.typing import Tree

MEMORY = 1000  # steps over which mean and deviation are averaged

Moments = Float[Array, "b i j m"]


def drawn(moments: Moments, noise: Float[Array, "b i j c"] | None) -> Float[Array, "b i j c"]:
    """Return the latents that standard normal noise draws from the distributions, or without noise their means."""
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    return mean if noise is None else mean + jnp.exp(0.5 * log_variance) * noise


def kl(moments: Moments) -> Float[Array, " b"]:
    """Return the divergence of each latent's distribution from N(0, 1), in nats, summed over places and channels.

    0.5·(mean² + variance - 1 - ln variance) for each number (arXiv:1312.6114, appendix B).
    """
    mean, log_variance = jnp.split(moments, 2, axis=-1)
    nats = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
    return nats.sum(tuple(range(1, nats.ndim)))


def measured(latent: Tree, moments: Moments, step: Array) -> Tree:
    """Return {"mean", "std"} f32[c] of the latents, with those of one more batch: evenly weighted over the first 1000
    steps, then exponentially."""
    mean, log_variance = jnp.split(jax.lax.stop_gradient(moments), 2, axis=-1)
    axes = tuple(range(mean.ndim - 1))
    center = mean.mean(axes)
    # The variance of what is drawn: that of the means, and the mean of the variances.
    spread = jnp.square(mean - center.reshape(1, 1, 1, -1)).mean(axes) + jnp.exp(log_variance).mean(axes)
    share = jnp.maximum(1.0 / (step + 1.0), 1.0 / MEMORY)
    offset = center - latent["mean"]
    variance = (1 - share) * (jnp.square(latent["std"]) + share * jnp.square(offset)) + share * spread
    return {"mean": latent["mean"] + share * offset, "std": jnp.sqrt(variance)}
