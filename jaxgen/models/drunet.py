"""DRUNet, the residual U-Net without norms that plug-and-play restoration is built on (DPIR, arXiv:2008.13751)."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn.fold import to_depth, to_space
from jaxgen.typing import Precision

Map = Float[Array, "b _ _ _"]


class DrUnet(nn.Module):
    """Restore f32[b h w c] at its own size: residual blocks at each resolution, on the way down and on the way up.

    It has no skip from the image to the output, so that what damage has made of a pixel need not stay. Images in
    [-1, 1] are taken to [0, 1], as in DPIR, and back at the end. Raises UserError if there is no width.
    """

    channels: int = 3
    """Of the images."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels per resolution, full first; each halves the one before."""
    blocks: int = 4
    """Residual blocks per resolution, on either way."""
    bias: bool = False
    """DPIR's net has none: what it makes of an image twice as bright is twice as bright. Faded pictures need one."""
    folded: int = 1
    """Side of the squares of pixels that are channels of one place from the first layer on."""
    dtype: Precision = "float32"

    @property
    def scale(self) -> int:
        return 1

    @property
    def factor(self) -> int:
        return self.folded * 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        del train
        if not self.widths:
            raise UserError("drunet: widths is empty; give the channels of at least one resolution, such as (32, 64)")
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, use_bias=self.bias, dtype=self.dtype)
        dense = functools.partial(nn.Dense, use_bias=self.bias, dtype=self.dtype)

        def blocks(x: Map, name: str) -> Map:
            for i in range(self.blocks):
                y = nn.relu(conv(x.shape[-1], name=f"{name}_{i}_conv0")(x))
                x = x + conv(x.shape[-1], name=f"{name}_{i}_conv1")(y)
            return x

        x = conv(self.widths[0], name="head")(to_depth(image / 2 + 0.5, self.folded))
        seen = [x]
        for i, width in enumerate(self.widths[1:]):
            # Convolutions of 2×2 at stride 2, and transposed, are products of squares of pixels.
            x = dense(width, name=f"halve{i}")(to_depth(blocks(x, f"down{i}"), 2))
            seen.append(x)
        x = blocks(x, "body")
        for i in reversed(range(len(self.widths) - 1)):
            x = dense(4 * self.widths[i], name=f"double{i}")(x + seen.pop())
            x = blocks(to_space(x, 2), f"up{i}")
        x = conv(self.channels * self.folded**2, name="tail")(x + seen.pop()).astype(jnp.float32)
        return 2 * to_space(x, self.folded) - 1
