"""What a denoiser is told beside the picture: the noise level and the class, as vectors."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def sinusoid(
    x: Float[Array, " b"], channels: int, *, longest: float = 10_000.0, endpoint: bool = False
) -> Float[Array, "b {channels}"]:
    """Return cosines, then sines, of x at channels / 2 frequencies falling geometrically from 1 (arXiv:1706.03762).

    The lowest frequency is 1 / longest with `endpoint` (EDM's DDPM++), one ratio above it without (ADM, DiT).
    """
    half = channels // 2
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - endpoint)
    angle = x.astype(jnp.float32)[:, None] * jnp.exp(-math.log(longest) * exponent)[None]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)


class Fourier(nn.Module):
    """Return cosines of x at fixed random frequencies and phases, of unit variance (EDM2, arXiv:2312.02696, B.3)."""

    channels: int
    bandwidth: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, " b"]) -> Float[Array, "b _"]:
        # Constants of the net, not weights: they are saved with it, and no optimizer sees them.
        frequency = self.variable("constants", "frequency", self._normal, 2 * math.pi * self.bandwidth)
        phase = self.variable("constants", "phase", self._uniform)
        angle = x.astype(jnp.float32)[:, None] * frequency.value[None] + phase.value[None]
        return jnp.cos(angle) * math.sqrt(2.0)

    def _normal(self, scale: float) -> Float[Array, " c"]:
        return scale * jax.random.normal(self.make_rng("params"), (self.channels,))

    def _uniform(self) -> Float[Array, " c"]:
        return 2 * math.pi * jax.random.uniform(self.make_rng("params"), (self.channels,))


def one_hot(label: Array, classes: int) -> Float[Array, "b n"]:
    """Turn ids i32[b] into weights f32[b classes + 1]; id `classes` is the null class, the last column."""
    return jax.nn.one_hot(label, classes + 1)
