"""FCN on a dilated ResNet, in torchvision's form, with an auxiliary head (FCN: arXiv:1411.4038)."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn import resize
from jaxgen.nn.norm import ConvNorm
from jaxgen.nn.resnet import ResNetBackbone
from jaxgen.typing import Precision


class FcnHead(nn.Module):
    """3×3 convolution to a quarter of the channels, dropout, 1×1 convolution to f32 logits."""

    classes: int
    dropout: float
    dtype: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w n"]:
        x = nn.relu(ConvNorm(x.shape[-1] // 4, 3, dtype=self.dtype, name="conv")(x, train))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Conv(self.classes, (1, 1), name="logits")(x.astype(jnp.float32))


class FcnResnet(nn.Module):
    """Fully convolutional ResNet: image f32[b h w c] in [-1, 1] to logits f32[b h w classes], of any size.

    The auxiliary head reads the third stage (deep supervision, PSPNet, arXiv:1612.01105, section 3.3). Its logits, of
    the image's size too, are sown as "logits" into the collection "aux" wherever that is mutable.
    """

    classes: int = 21
    depth: int = 50
    """Layers of the ResNet."""
    width: int = 64
    """Channels of the ResNet's stem."""
    output_stride: int = 8
    """Pixels per cell of the features: 8, 16 or 32."""
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
        *_, c4, c5 = backbone(image, train=train)
        aux = FcnHead(self.classes, self.dropout, self.dtype, name="aux_head")(c4, train)
        if not self.is_initializing():  # init makes parameters and statistics only
            self.sow("aux", "logits", resize.bilinear(aux, height, width))
        logits = FcnHead(self.classes, self.dropout, self.dtype, name="head")(c5, train)
        return resize.bilinear(logits, height, width)
