"""The discriminator of StyleGAN2 (arXiv:1912.04958) in the form of StyleGAN2-ADA (arXiv:2006.06676)."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.conditioning import label_weights
from jaxgen.nn.equalized import EqualizedConv, EqualizedDense, leaky
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.nn.style import Mapping, maps
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b h w _"]
Half = Float[Array, "b h//2 w//2 _"]


class PlainBlock(nn.Module):
    """Two convolutions, the second of which halves the map."""

    features: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Half:
        x = leaky(EqualizedConv(x.shape[-1], dtype=self.dtype, name="conv0")(x))
        return leaky(EqualizedConv(self.features, down=2, dtype=self.dtype, name="conv1")(x))


class ResidualBlock(nn.Module):
    """The same, added to a 1×1 convolution without bias; each of the two has half of the variance."""

    features: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Half:
        skip = EqualizedConv(self.features, size=1, down=2, use_bias=False, dtype=self.dtype, name="skip")(x)
        x = leaky(EqualizedConv(x.shape[-1], dtype=self.dtype, name="conv0")(x))
        x = leaky(EqualizedConv(self.features, down=2, dtype=self.dtype, name="conv1")(x), gain=1.0)
        return x + skip * math.sqrt(0.5)


class _Discriminator(nn.Module):
    """Abstract: both discriminators, but for the block."""

    classes: int = 0
    """Number of classes; 0 for none."""
    base: int = 32_768
    """Channels of a map times its side, as long as they are at most `widest`."""
    widest: int = 512
    """Most channels of a map."""
    group: int = 4
    """Samples that are compared with one another."""
    mapping_layers: int = 8
    """Layers between a class' embedding and what the features are projected on."""
    dtype: Precision = "float32"
    """Type that the blocks compute in; parameters, what follows the blocks, and the output are float32."""

    def _block(self, features: int, name: str) -> nn.Module:
        raise NotImplementedError

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], condition: Condition, *, train: bool) -> Float[Array, " b"]:
        del train  # nothing here differs
        label = label_weights(condition, self.classes)
        sides = maps(image.shape[1], image.shape[2])[0][::-1]
        widths = [min(self.base // side, self.widest) for side in sides]
        x = leaky(EqualizedConv(widths[0], size=1, dtype=self.dtype, name="in")(image))
        for side, width in zip(sides[:-1], widths[1:], strict=True):
            x = self._block(width, f"block{side}")(x)
        x = minibatch_std(x.astype(jnp.float32), self.group)
        x = leaky(EqualizedConv(widths[-1], name="conv")(x))
        x = leaky(EqualizedDense(widths[-1], name="dense")(x.reshape(len(x), -1)))
        if label is None:
            return EqualizedDense(1, name="out")(x)[:, 0]
        x = EqualizedDense(widths[-1], name="out")(x)
        direction = Mapping(self.mapping_layers, widths[-1], self.classes, name="mapping")(None, label)
        return (x * direction).sum(1) / math.sqrt(widths[-1])


class StyleGan2Discriminator(_Discriminator):
    """Map images f32[b h w c] to logits f32[b], higher where more real, through residual blocks.

    It compares the samples of a batch (`minibatch_std`), so a logit depends on the other rows. Raises UserError unless
    halving the image leads to a shorter side of 4..7 pixels, and the condition fits `classes`.
    """

    def _block(self, features: int, name: str) -> nn.Module:
        return ResidualBlock(features, self.dtype, name=name)


class PlainStyleGan2Discriminator(_Discriminator):
    """The same without residual connections ("orig"), as StyleGAN2-ADA has it for CIFAR-10, with `group` 32."""

    def _block(self, features: int, name: str) -> nn.Module:
        return PlainBlock(features, self.dtype, name=name)
