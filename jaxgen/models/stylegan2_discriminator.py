"""The discriminator of StyleGAN2 (arXiv:1912.04958) in the form of StyleGAN2-ADA (arXiv:2006.06676)."""

import math
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxgen.errors import UserError
from jaxgen.models.stylegan2 import Mapping, sides
from jaxgen.nn.equalized import EqualizedConv, EqualizedDense, leaky
from jaxgen.nn.label import check_label
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.typing import Precision

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
    """The same beside a 1×1 convolution without bias; each of the two counts half of the variance."""

    features: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Half:
        skip = EqualizedConv(self.features, size=1, down=2, use_bias=False, dtype=self.dtype, name="skip")(x)
        x = leaky(EqualizedConv(x.shape[-1], dtype=self.dtype, name="conv0")(x))
        x = leaky(EqualizedConv(self.features, down=2, dtype=self.dtype, name="conv1")(x), gain=1.0)
        return x + skip * math.sqrt(0.5)


class StyleGan2Discriminator(nn.Module):
    """Map pictures f32[b h w c] and class ids to logits f32[b], through residual blocks.

    It compares the samples of a batch (`minibatch_std`), so a logit depends on the other rows. Raises UserError unless
    the picture is a square whose side is 4 times a power of two, and the label fits `classes`.
    """

    classes: int = 0
    """Classes that it is told apart by `label`; 0 for none."""
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

    _block: ClassVar[Callable[..., nn.Module]] = ResidualBlock

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], label: Int[Array, " b"] | None, *, train: bool
    ) -> Float[Array, " b"]:
        del train  # nothing here differs
        check_label(label, self.classes)
        if image.shape[1] != image.shape[2]:
            raise UserError(
                f"stylegan2: a picture of {image.shape[1]}×{image.shape[2]} is no square; crop or resize it"
            )
        widths = [min(self.base // side, self.widest) for side in reversed(sides(image.shape[1]))]
        x = leaky(EqualizedConv(widths[0], size=1, dtype=self.dtype, name="in")(image))
        for width in widths[1:]:
            x = type(self)._block(width, self.dtype, name=f"block{x.shape[1]}")(x)
        x = minibatch_std(x.astype(jnp.float32), self.group)
        x = leaky(EqualizedConv(widths[-1], name="conv")(x))
        x = leaky(EqualizedDense(widths[-1], name="dense")(x.reshape(len(x), -1)))
        if label is None:
            return EqualizedDense(1, name="out")(x)[:, 0]
        x = EqualizedDense(widths[-1], name="out")(x)
        direction = Mapping(self.mapping_layers, widths[-1], self.classes, name="mapping")(None, label)
        return (x * direction).sum(1) / math.sqrt(widths[-1])


class PlainStyleGan2Discriminator(StyleGan2Discriminator):
    """The same without residual connections ("orig"), as StyleGAN2-ADA has it for CIFAR-10, with `group` 32."""

    _block: ClassVar[Callable[..., nn.Module]] = PlainBlock
