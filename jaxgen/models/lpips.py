"""What LPIPS compares images by: maps of VGG-16, weighted by how much people minded (arXiv:1801.03924)."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.nn.norm import unit_length
from jaxgen.nn.resize import max_pool

# Of ImageNet's colours, for images in [-1, 1].
MEAN = np.array([-0.030, -0.088, -0.188], np.float32)
STD = np.array([0.458, 0.448, 0.450], np.float32)


class LpipsVgg(nn.Module):
    """Map images f32[b h w 3] in [-1, 1] to f32[b i j c] for each stage of VGG-16, whose differences LPIPS squares.

    A map is the stage's last convolution rectified, of unit length at each cell, times the root of the weight of each
    channel. The sides are 16 pixels or more.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each stage; each stage but the first has half the side of the one before."""
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions in each stage."""

    def __call__(self, image: Float[Array, "b h w 3"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        return self.compared(image, train=train)

    @nn.compact
    def compared(self, image: Float[Array, "b h w 3"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        del train
        x, maps = (image - MEAN[None, None, None]) / STD[None, None, None], []
        for n, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            x = max_pool(x, "VALID") if n > 1 else x
            for i in range(1, depth + 1):
                x = nn.relu(nn.Conv(width, (3, 3), padding=1, name=f"conv{n}_{i}")(x))
            maps.append(unit_length(x) * _Weight(name=f"lin{n}")(width))
        return tuple(maps)


class _Weight(nn.Module):
    """The root of a weight for each channel, which LPIPS keeps as a 1×1 convolution."""

    @nn.compact
    def __call__(self, width: int) -> Float[Array, "1 1 1 c"]:
        kernel = self.param("kernel", nn.initializers.ones, (1, 1, width, 1))
        return jnp.sqrt(jnp.maximum(kernel, 0.0)).reshape(1, 1, 1, width)
