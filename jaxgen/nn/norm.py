"""Batch and instance normalisation, and the convolution they follow, as every convolutional model here uses them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.group_norm import group_norm
from jaxgen.typing import Precision


def batch_norm(
    x: Float[Array, "b h w c"],
    train: bool,
    *,
    dtype: Precision = "float32",
    scale_init: nn.initializers.Initializer = nn.initializers.ones,
    name: str | None = None,
) -> Float[Array, "b h w c"]:
    """Normalise each channel over b, h and w (arXiv:1502.03167); call it inside a compact method.

    Running statistics live in "batch_stats"; their variance is the biased one, mean((x - mean)²). A map with one
    value per channel (one image, pooled to 1×1) has no variance: there the running statistics are used and stay
    as they are; the batch's would let the running variance decay to zero.
    """
    single = x.size == x.shape[-1]
    norm = nn.BatchNorm(
        use_running_average=not train or single,
        momentum=0.9,
        epsilon=1e-5,
        dtype=dtype,
        scale_init=scale_init,
        name=name,
    )
    return norm(x)


def instance_norm(x: Float[Array, "b h w c"], dtype: Precision = "float32") -> Float[Array, "b h w c"]:
    """Normalise each channel of each image by itself (arXiv:1607.08022), without a scale; a single value becomes 0."""
    channels = x.shape[-1]
    return group_norm(x, jnp.ones(channels), jnp.zeros(channels), channels, 1e-5).astype(dtype)


class ConvNorm(nn.Module):
    """A convolution without bias, then batch normalisation.

    The padding is the symmetric dilation·(kernel - 1)/2. "SAME" would differ from it at stride 2 on even sizes, where
    it pads the far side only and so shifts the map by half a pixel.
    """

    features: int
    kernel: int = 1
    """Height and width of the kernel; odd."""
    stride: int = 1
    dilation: int = 1
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"], train: bool) -> Float[Array, "b _ _ _"]:
        margin = self.dilation * (self.kernel - 1) // 2
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=margin,
            kernel_dilation=self.dilation,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name="conv",
        )(x)
        return batch_norm(x, train, dtype=self.dtype, scale_init=self.scale_init, name="norm")


def unit_length(x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
    """Return maps of unit length at each cell; 0 where they are 0."""
    # The root's gradient is infinite at 0, where a map of ReLUs may well be.
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-10)
