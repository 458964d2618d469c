"""Small nets of points: denoiser, generator and discriminator for a few dimensions."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.nn.conditioning import ClassEmbed, ConditionEmbedding, label_weights
from jaxgen.typing import Condition, Precision

_leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)
# He's rule for a leaky ReLU of slope 0.2 (arXiv:1502.01852, equation 15): activations keep their size in any depth.
_he = nn.initializers.variance_scaling(2 / (1 + 0.2**2), "fan_in", "normal")
_lecun = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class MlpDenoiser(nn.Module):
    """Residual layers that denoise points or small images f32[b *s].

    Its output is 0 at first. Raises UserError unless the condition fits `classes`.
    """

    classes: int = 0
    """Number of classes, without the null class; 0 for a net that takes no label."""
    width: int = 128
    depth: int = 3
    """Residual layers."""
    frequency: float = 10.0
    """The highest frequency of the noise level's sinusoids, in radians per unit: more than a DiT's, because here the
    noise level is often a number below 1 (a flow's t, or ln(σ) / 4)."""
    dtype: Precision = "float32"
    """Type that the layers compute in; parameters, embeddings and the output are float32."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *s"], noise: Float[Array, " b"], condition: Condition, *, train: bool
    ) -> Float[Array, "b *s"]:
        del train  # nothing here differs
        shape, x = x.shape, x.reshape(len(x), -1)
        c = nn.silu(ConditionEmbedding(self.width, self.classes, self.frequency, name="condition")(noise, condition))
        y = nn.Dense(self.width, dtype=self.dtype, name="in")(x)
        for i in range(self.depth):
            # The noise level has to scale what the net sees, not only to shift it: x0 = x / (1 + σ²) for a Gaussian.
            shift, scale = jnp.split(nn.Dense(2 * self.width, dtype=self.dtype, name=f"modulation{i}")(c), 2, axis=1)
            hidden = nn.Dense(self.width, dtype=self.dtype, name=f"layer{i}")(y)
            y = y + nn.Dense(self.width, dtype=self.dtype, name=f"back{i}")(nn.silu(hidden * (1 + scale) + shift))
        out = nn.Dense(x.shape[1], kernel_init=nn.initializers.zeros, name="out")
        return out(nn.silu(y).astype(jnp.float32)).reshape(shape)


class MlpGenerator(nn.Module):
    """Leaky ReLU layers that map z f32[b latent], standard normal, to points, or images, f32[b *shape] of order one.

    `truncation` scales z; `noise` is not used. Raises UserError unless the condition fits `classes`.
    """

    latent: int = 2
    """Length of z."""
    classes: int = 0
    """Number of classes; 0 for a net that takes no label."""
    shape: tuple[int, ...] = (2,)
    """Of one example: (2,) for points in the plane, (8, 8, 3) for images."""
    width: int = 256
    depth: int = 2
    """Hidden layers."""
    dtype: Precision = "float32"
    """Type that the layers compute in; parameters, embeddings and the output are float32."""

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "b z"],
        condition: Condition,
        noise: Key[Array, " b"],
        *,
        train: bool,
        truncation: float = 1.0,
    ) -> Float[Array, "b *s"]:
        del noise, train  # z is all that is random here, in training too
        label = label_weights(condition, self.classes)
        y = nn.Dense(self.width, kernel_init=_he, dtype=self.dtype, name="layer0")(z * truncation)
        if label is not None:
            # A vector for each class, added here: the same as one concatenated to z, without a second matrix.
            y = y + ClassEmbed(self.classes, self.width, nn.initializers.normal(1.0), name="label")(label)
        for i in range(1, self.depth):
            y = nn.Dense(self.width, kernel_init=_he, dtype=self.dtype, name=f"layer{i}")(_leaky(y))
        y = nn.Dense(math.prod(self.shape), kernel_init=_lecun, name="out")(_leaky(y).astype(jnp.float32))
        return y.reshape(-1, *self.shape)


class MlpDiscriminator(nn.Module):
    """Leaky ReLU layers that map points f32[b *s] to logits f32[b], higher where more real.

    The class enters by projection: its vector times the last layer, added to the logit (arXiv:1802.05637, equation 3).
    No layer mixes examples. Raises UserError unless the condition fits `classes`.
    """

    classes: int = 0
    """Number of classes; 0 for a net that takes no label."""
    scale: float = 1.0
    """What the input is divided by: about its standard deviation."""
    width: int = 256
    depth: int = 2
    """Hidden layers."""
    octaves: int = 0
    """Sines and cosines of each coordinate, of the frequencies π, 2π, 4π …, that enter beside it (arXiv:2003.08934,
    equation 4): a net of coordinates alone learns late what is narrow (arXiv:2006.10739)."""
    dtype: Precision = "float32"
    """Type that the layers compute in; parameters, embeddings and the output are float32."""

    @nn.compact
    def __call__(self, image: Float[Array, "b *s"], condition: Condition, *, train: bool) -> Float[Array, " b"]:
        del train  # nothing here differs
        label = label_weights(condition, self.classes)
        y = image.reshape(len(image), -1) / self.scale
        if self.octaves:
            angles = [y * (math.pi * 2**k) for k in range(self.octaves)]
            y = jnp.concatenate([y, *map(jnp.sin, angles), *map(jnp.cos, angles)], axis=1)
        for i in range(self.depth):
            y = _leaky(nn.Dense(self.width, kernel_init=_he, dtype=self.dtype, name=f"layer{i}")(y))
        y = y.astype(jnp.float32)
        logit = nn.Dense(1, kernel_init=_lecun, name="out")(y)[:, 0]
        if label is not None:
            start = nn.initializers.normal(self.width**-0.5)
            logit = logit + (ClassEmbed(self.classes, self.width, start, name="label")(label) * y).sum(1)
        return logit
