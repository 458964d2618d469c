"""Operations that keep the magnitude of activations and weights (EDM2, arXiv:2312.02696; equations as there)."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


def unit(kernel: Float[Array, "*in out"]) -> Float[Array, "*in out"]:
    """Scale the weights of each output to a mean square of 1 (algorithm 1)."""
    return _by_root_mean_square(kernel, tuple(range(kernel.ndim - 1)))


def pixel_norm(x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
    """Scale each vector of channels to a root mean square of 1 (equation 30)."""
    return _by_root_mean_square(x, (-1,))


def mp_silu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """SiLU, of unit mean square for standard normal x (equation 81)."""
    return nn.silu(x) / 0.596


def mp_sum(a: Float[Array, "*s"], b: Float[Array, "*s"], t: float) -> Float[Array, "*s"]:
    """Blend a and b, at t = 0 all a, of unit mean square where a and b have it and are uncorrelated (equation 88)."""
    norm = math.hypot(1 - t, t)
    return a * ((1 - t) / norm) + b * (t / norm)


def mp_cat(a: Float[Array, "*s c"], b: Float[Array, "*s d"], t: float) -> Float[Array, "*s _"]:
    """Concatenate channels of unit mean square to the same, b's share of the whole being t²/((1-t)²+t²) (eq. 103)."""
    c, d = a.shape[-1], b.shape[-1]
    scale = math.sqrt(c + d) / math.hypot(1 - t, t)
    return jnp.concatenate([a * (scale * (1 - t) / math.sqrt(c)), b * (scale * t / math.sqrt(d))], axis=-1)


def _by_root_mean_square(x: Float[Array, "*s"], axes: tuple[int, ...]) -> Float[Array, "*s"]:
    square = jnp.square(x.astype(jnp.float32)).mean(axes, keepdims=True)
    # 1e-30 is far below float32's resolution next to anything but zero, where it keeps the root's gradient finite.
    return (x / (1e-4 + jnp.sqrt(square + 1e-30))).astype(x.dtype)
