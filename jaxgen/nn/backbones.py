"""Stages of 3 × 3 convolutions, each of which ends in a pool that halves the side: with batch norm, and VGG's."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxgen.nn.resize import Padding, max_pool
from jaxgen.typing import Precision


class SmallBackbone(nn.Module):
    """Stages of 3 × 3 convolutions with batch norm, each halving the side: cheap enough to train on a CPU."""

    widths: tuple[int, ...] = (32, 64, 128, 128, 128)
    """Channels of each stage; stage i has stride 2^i."""
    depths: tuple[int, ...] = (1, 1, 2, 1, 1)
    """Convolutions in each stage."""
    padding: Padding = "SAME"
    """Of convolutions and pools."""
    dtype: Precision = "float32"
    """Type to compute in."""
    remat: bool = False
    """Recompute each stage in the backward pass rather than keep its activations."""

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Map image f32[b h w c] in [-1, 1] to the output of every stage, finest first."""

        def stage(self: nn.Module, x: Array, number: int, width: int, depth: int) -> Array:
            for i in range(1, depth + 1):
                conv = nn.Conv(
                    width, (3, 3), padding=self.padding, use_bias=False, dtype=self.dtype, name=f"conv{number}_{i}"
                )
                x = conv(x)
                # Pooled first: the norm and the activation then touch a quarter of the pixels.
                x = max_pool(x, self.padding) if i == depth else x
                norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=f"norm{number}_{i}")
                x = nn.relu(norm(x))
            return x

        run = nn.remat(stage, static_argnums=(2, 3, 4)) if self.remat else stage
        x, maps = image.astype(self.dtype), []
        for number, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            x = run(self, x, number, width, depth)
            maps.append(x)
        return tuple(maps)


class VggBackbone(nn.Module):
    """The convolutions of VGG; the default is configuration D, VGG-16."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each stage; stage i has stride 2^i."""
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions in each stage."""
    padding: Padding = "SAME"
    """Of convolutions."""
    pool: Padding = "SAME"
    """SAME rounds an odd side up, as Caffe and so FCN do; VALID rounds it down, as torchvision does."""
    dtype: Precision = "float32"
    """Type to compute in."""
    remat: bool = False
    """Recompute each stage in the backward pass rather than keep its activations."""

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Map image f32[b h w c] in [-1, 1] to pool1 … pool5, the output of every stage, finest first."""
        del train  # nothing in here behaves differently in training

        def stage(self: nn.Module, x: Array, number: int, width: int, depth: int) -> Array:
            for i in range(1, depth + 1):
                conv = nn.Conv(
                    width,
                    (3, 3),
                    padding=self.padding,
                    kernel_init=nn.initializers.he_normal(),
                    dtype=self.dtype,
                    name=f"conv{number}_{i}",
                )
                x = nn.relu(conv(x))
            return max_pool(x, self.pool)

        run = nn.remat(stage, static_argnums=(2, 3, 4)) if self.remat else stage
        x, maps = image.astype(self.dtype), []
        for number, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            x = run(self, x, number, width, depth)
            maps.append(x)
        return tuple(maps)
