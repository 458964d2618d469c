"""The residual stages of ResNet (arXiv:1512.03385) in torchvision's geometry, for classifiers and segmentation nets.

In the bottleneck the stride is on the 3×3 convolution ("v1.5"). Below the wanted output stride, strides become
dilations (atrous convolution, arXiv:1706.05587, section 3.1).
"""

import dataclasses

import flax.linen as nn
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn.norm import ConvNorm
from jaxgen.typing import Precision


@dataclasses.dataclass(frozen=True)
class Stem:
    """The first layer: one convolution, then a 3×3 max pool where `pool` is above 1."""

    kernel: int = 7
    stride: int = 2
    pool: int = 2
    """Stride of the max pool; 1 leaves the pool out."""


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut: `width` channels out."""

    width: int
    stride: int
    dilation: int
    """Dilation on the way in, before this block's stride."""
    dilation_out: int
    """Dilation after it; larger where a dilation takes the stride's place."""
    dtype: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"], train: bool) -> Float[Array, "b _ _ _"]:
        y = ConvNorm(self.width, 3, self.stride, self.dilation, dtype=self.dtype, name="conv1")(x, train)
        y = ConvNorm(
            self.width, 3, dilation=self.dilation_out, scale_init=nn.initializers.zeros, dtype=self.dtype, name="conv2"
        )(nn.relu(y), train)
        return nn.relu(y + _shortcut(x, y, self.stride, self.dtype, train))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions and a shortcut: 4·`width` channels out."""

    width: int
    stride: int
    dilation: int
    """Dilation of the 3×3 convolution, which carries the block's stride."""
    dilation_out: int
    """Dilation after the stride: none of this block's convolutions needs it."""
    dtype: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"], train: bool) -> Float[Array, "b _ _ _"]:
        y = ConvNorm(self.width, dtype=self.dtype, name="conv1")(x, train)
        y = ConvNorm(self.width, 3, self.stride, self.dilation, dtype=self.dtype, name="conv2")(nn.relu(y), train)
        y = ConvNorm(4 * self.width, scale_init=nn.initializers.zeros, dtype=self.dtype, name="conv3")(
            nn.relu(y), train
        )
        return nn.relu(y + _shortcut(x, y, self.stride, self.dtype, train))


def _shortcut(
    x: Float[Array, "b _ _ _"], y: Float[Array, "b h w c"], stride: int, dtype: Precision, train: bool
) -> Float[Array, "b h w c"]:
    """The identity where shapes allow it, otherwise a 1×1 projection (option B of the paper)."""
    if x.shape == y.shape:
        return x
    return ConvNorm(y.shape[-1], stride=stride, dtype=dtype, name="shortcut")(x, train)


STAGES: dict[int, tuple[type[nn.Module], tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    14: (Bottleneck, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    26: (Bottleneck, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}  # depth -> block, blocks per stage (arXiv:1512.03385, table 1; 10, 14 and 26 are smaller ones of the same kinds)


def residual_stages(
    image: Float[Array, "b _ _ _"],
    train: bool,
    *,
    depth: int,
    width: int,
    stem: Stem,
    output_stride: int,
    remat: bool,
    dtype: Precision,
) -> tuple[Float[Array, "b _ _ _"], ...]:
    """Return the maps c1 (after the stem's convolution) and c2 to c5 (after each stage), finest first.

    Call it inside a compact method. Raises UserError for a depth that is not in STAGES and for an output stride below
    the stem's.
    """
    if depth not in STAGES:
        raise UserError(f"resnet: no depth {depth}; there are {', '.join(map(str, STAGES))}")
    stride, dilation = stem.stride * stem.pool, 1
    if output_stride < stride:
        raise UserError(f"resnet: output_stride {output_stride} is below the stem's {stride}; take {stride} or more")

    block, counts = STAGES[depth]
    if remat:
        block = nn.remat(block, static_argnums=(2,))  # `train`, counted from self

    x = nn.relu(ConvNorm(width, stem.kernel, stem.stride, dtype=dtype, name="stem")(image, train))
    maps = [x]
    if stem.pool > 1:
        x = nn.max_pool(x, (3, 3), strides=(stem.pool, stem.pool), padding=((1, 1), (1, 1)))
    for i, count in enumerate(counts):
        step, dilation_in = 1 if i == 0 else 2, dilation
        if stride * step > output_stride:
            step, dilation = 1, dilation * step
        stride *= step
        for j in range(count):
            # The first block still reads the finer grid, undilated by this stage: only so does the dense net, taken
            # at every stride-th cell, equal the strided net with the same weights.
            first = j == 0
            x = block(
                width * 2**i,
                step if first else 1,
                dilation_in if first else dilation,
                dilation,
                dtype,
                name=f"stage{i + 1}_{j}",
            )(x, train)
        maps.append(x)
    return tuple(maps)


class ResNetBackbone(nn.Module):
    """A ResNet without its classifier: image f32[b h w c] in [-1, 1] to the maps of `residual_stages`."""

    depth: int = 50
    """Layers, a key of STAGES."""
    width: int = 64
    """Channels of the stem; the stages have 1, 2, 4 and 8 times as many (4 times that with bottlenecks)."""
    stem: Stem = Stem()
    output_stride: int = 32
    """The coarsest that features may get, in pixels per cell; beyond it strides become dilations."""
    remat: bool = False
    """Recompute each block in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, image: Float[Array, "b _ _ _"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        return residual_stages(
            image,
            train,
            depth=self.depth,
            width=self.width,
            stem=self.stem,
            output_stride=self.output_stride,
            remat=self.remat,
            dtype=self.dtype,
        )
