"""DeepLabV3+ (arXiv:1802.02611) on a dilated ResNet.

Atrous spatial pyramid pooling reads c5 at several rates; the decoder joins it, at a quarter of the image's size, with
c2 cut down to few channels. Convolutions of 3×3 in both are depthwise separable (section 3.1 of the paper).
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn import resize
from jaxgen.nn.norm import ConvNorm
from jaxgen.nn.resnet import ResNetBackbone
from jaxgen.typing import Precision


class SeparableConv(nn.Module):
    """3×3 depthwise atrous convolution, 1×1 convolution, batch normalisation, ReLU."""

    features: int
    dilation: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "b h w _"], train: bool) -> Float[Array, "b h w _"]:
        x = nn.Conv(
            x.shape[-1],
            (3, 3),
            padding=self.dilation,
            kernel_dilation=self.dilation,
            feature_group_count=x.shape[-1],
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
            name="depthwise",
        )(x)
        return nn.relu(ConvNorm(self.features, dtype=self.dtype, name="pointwise")(x, train))


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling with image pooling (arXiv:1706.05587, section 3.3)."""

    features: int
    rates: tuple[int, ...]
    dropout: float
    dtype: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "b h w _"], train: bool) -> Float[Array, "b h w _"]:
        branches = [nn.relu(ConvNorm(self.features, dtype=self.dtype, name="point")(x, train))]
        for i, rate in enumerate(self.rates):
            branches.append(SeparableConv(self.features, rate, self.dtype, name=f"atrous{i}")(x, train))
        pooled = x.astype(jnp.float32).mean((1, 2), keepdims=True)
        pooled = nn.relu(ConvNorm(self.features, dtype=self.dtype, name="image")(pooled, train))
        branches.append(jnp.broadcast_to(pooled, branches[0].shape))
        x = jnp.concatenate(branches, axis=-1)
        x = nn.relu(ConvNorm(self.features, dtype=self.dtype, name="project")(x, train))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ over a ResNet: image f32[b h w c] in [-1, 1] to logits f32[b h w classes], of any size."""

    classes: int = 21
    depth: int = 50
    """Layers of the ResNet."""
    width: int = 64
    """Channels of the ResNet's stem."""
    output_stride: int = 16
    """Pixels per cell of the features that the pyramid reads: 8, 16 or 32."""
    rates: tuple[int, ...] = (6, 12, 18)
    """Dilations of the pyramid's branches; at output stride 8 the paper doubles them, (12, 24, 36)."""
    features: int = 256
    """Channels of the pyramid and of the decoder."""
    low_features: int = 48
    """Channels that c2 is cut down to, so that its many do not outweigh the pyramid's (table 1 of the paper)."""
    dropout: float = 0.1
    remat: bool = False
    """Recompute each residual block in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w n"]:
        _, height, width, _ = image.shape
        backbone = ResNetBackbone(
            depth=self.depth,
            width=self.width,
            output_stride=self.output_stride,
            remat=self.remat,
            dtype=self.dtype,
            name="backbone",
        )
        _, c2, *_, c5 = backbone(image, train=train)
        x = AtrousPyramid(self.features, self.rates, self.dropout, self.dtype, name="pyramid")(c5, train)
        x = SeparableConv(self.features, 1, self.dtype, name="smooth")(x, train)
        x = resize.bilinear(x, c2.shape[1], c2.shape[2])
        low = nn.relu(ConvNorm(self.low_features, dtype=self.dtype, name="low")(c2, train))
        x = jnp.concatenate([x, low], axis=-1)
        x = SeparableConv(self.features, 1, self.dtype, name="fuse")(x, train)
        logits = nn.Conv(self.classes, (1, 1), name="logits")(x.astype(jnp.float32))
        return resize.bilinear(logits, height, width)
