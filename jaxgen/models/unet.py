"""U-Net (arXiv:1505.04597), with convolutions that keep the size and with batch normalisation."""

import dataclasses
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn import resize
from jaxgen.nn.norm import ConvNorm
from jaxgen.typing import Precision


@runtime_checkable
class Upsample(Protocol):
    """How a map doubles its height and width on the way up; called inside a compact method."""

    def __call__(
        self, x: Float[Array, "b h w c"], features: int, *, dtype: Precision, name: str
    ) -> Float[Array, "b 2*h 2*w {features}"]: ...


@dataclasses.dataclass(frozen=True)
class Transposed:
    """A learned 2×2 transposed convolution of stride 2, the paper's up-convolution: each cell becomes four."""

    def __call__(
        self, x: Float[Array, "b h w c"], features: int, *, dtype: Precision, name: str
    ) -> Float[Array, "b 2*h 2*w {features}"]:
        b, h, w, _ = x.shape
        # Where stride and kernel agree no products overlap: a matrix product, whose gradient is far cheaper on a CPU
        # than that of a convolution with holes.
        cells = nn.DenseGeneral((2, 2, features), use_bias=False, dtype=dtype, name=name)(x)
        return cells.swapaxes(2, 3).reshape(b, 2 * h, 2 * w, features)


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Repeat each cell 2×2, then convolve 3×3: no checkerboards (distill.pub/2016/deconv-checkerboard)."""

    def __call__(
        self, x: Float[Array, "b h w c"], features: int, *, dtype: Precision, name: str
    ) -> Float[Array, "b 2*h 2*w {features}"]:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        return nn.Conv(features, (3, 3), use_bias=False, dtype=dtype, name=name)(x)


class DoubleConv(nn.Module):
    """Twice: 3×3 convolution, batch normalisation, ReLU."""

    features: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "b h w _"], train: bool) -> Float[Array, "b h w _"]:
        x = nn.relu(ConvNorm(self.features, 3, dtype=self.dtype, name="conv1")(x, train))
        return nn.relu(ConvNorm(self.features, 3, dtype=self.dtype, name="conv2")(x, train))


class Unet(nn.Module):
    """U-Net: image f32[b h w c] in [-1, 1] to logits f32[b h w classes], of any size.

    Each level halves the size; each way back up joins the map of its own size, the full-resolution one included.
    Raises UserError if there is no width.
    """

    classes: int = 21
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels per level, from full resolution down: n widths halve the size n - 1 times."""
    upsample: Upsample = Transposed()
    remat: bool = False
    """Recompute each level in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w n"]:
        if not self.widths:
            raise UserError("unet: widths is empty; give the channels of at least one level, such as (16, 32, 64)")
        _, height, width, _ = image.shape
        *widths, bottom = self.widths
        level = nn.remat(DoubleConv, static_argnums=(2,)) if self.remat else DoubleConv  # 2: `train`, from self

        x = resize.pad_to_multiple(image, 2 ** len(widths))
        skips = []
        for i, features in enumerate(widths):
            x = level(features, self.dtype, name=f"down{i}")(x, train)
            skips.append(x)
            x = resize.max_pool_2x2(x)
        x = level(bottom, self.dtype, name="bottom")(x, train)
        for i, features in reversed(list(enumerate(widths))):
            x = self.upsample(x, features, dtype=self.dtype, name=f"upsample{i}")
            x = level(features, self.dtype, name=f"up{i}")(jnp.concatenate([skips[i], x], axis=-1), train)
        logits = nn.Conv(self.classes, (1, 1), name="logits")(x.astype(jnp.float32))
        return logits[:, :height, :width]
