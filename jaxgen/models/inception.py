"""InceptionV3 (arXiv:1512.00567) as the Fréchet inception distance has it: the graph "2015-12-05" of TensorFlow.

It differs from the paper, and from torchvision's, in that average pools leave the padding out of their count, that the
last block pools by maximum, and that there are 1008 logits. Modules have the names of pytorch-fid's, whose weights
`weights.inception` reads.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SIDE = 299  # height and width of the net's input

Kernel = tuple[int, int]


class Conv(nn.Module):
    """A convolution without bias, batch normalisation by its running statistics, ReLU."""

    features: int
    kernel: Kernel = (1, 1)
    stride: int = 1
    padding: Literal["SAME", "VALID"] = "SAME"

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"]) -> Float[Array, "b _ _ _"]:
        # Full float32 on every device: a distance between features is to be the same number everywhere.
        conv = nn.Conv(
            self.features,
            self.kernel,
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            precision=jax.lax.Precision.HIGHEST,
            name="conv",
        )
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(conv(x)))


def _chain(x: Float[Array, "b h w _"], name: str, *layers: tuple[int, Kernel]) -> Float[Array, "b h w _"]:
    """Apply convolutions {name}_1, {name}_2, … that keep the size; called inside a compact method."""
    for i, (features, kernel) in enumerate(layers, start=1):
        x = Conv(features, kernel, name=f"{name}_{i}")(x)
    return x


def average_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Average each 3×3 neighbourhood over those of its cells that lie inside the map."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Take the largest of each 3×3 neighbourhood."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def halving_pool(x: Float[Array, "b _ _ c"]) -> Float[Array, "b _ _ c"]:
    """Take the largest of each 3×3 cells at stride 2, none beyond the border."""
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


class MixedA(nn.Module):
    """Branches of 1×1, 5×5 and two 3×3 convolutions, and a pool, at 35×35."""

    pooled: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w _"]) -> Float[Array, "b h w _"]:
        one = Conv(64, name="branch1x1")(x)
        five = _chain(x, "branch5x5", (48, (1, 1)), (64, (5, 5)))
        three = _chain(x, "branch3x3dbl", (64, (1, 1)), (96, (3, 3)), (96, (3, 3)))
        pool = Conv(self.pooled, name="branch_pool")(average_pool(x))
        return jnp.concatenate([one, five, three, pool], axis=-1)


class MixedB(nn.Module):
    """From 35×35 to 17×17."""

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"]) -> Float[Array, "b _ _ _"]:
        three = Conv(384, (3, 3), 2, "VALID", name="branch3x3")(x)
        double = _chain(x, "branch3x3dbl", (64, (1, 1)), (96, (3, 3)))
        double = Conv(96, (3, 3), 2, "VALID", name="branch3x3dbl_3")(double)
        return jnp.concatenate([three, double, halving_pool(x)], axis=-1)


class MixedC(nn.Module):
    """Branches of 1×1, one and two 7×7 convolutions, each as 1×7 and 7×1, and a pool, at 17×17."""

    width: int
    """Channels inside the 7×7 branches."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w _"]) -> Float[Array, "b h w _"]:
        n = self.width
        one = Conv(192, name="branch1x1")(x)
        seven = _chain(x, "branch7x7", (n, (1, 1)), (n, (1, 7)), (192, (7, 1)))
        double = _chain(x, "branch7x7dbl", (n, (1, 1)), (n, (7, 1)), (n, (1, 7)), (n, (7, 1)), (192, (1, 7)))
        pool = Conv(192, name="branch_pool")(average_pool(x))
        return jnp.concatenate([one, seven, double, pool], axis=-1)


class MixedD(nn.Module):
    """From 17×17 to 8×8."""

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ _"]) -> Float[Array, "b _ _ _"]:
        three = _chain(x, "branch3x3", (192, (1, 1)))
        three = Conv(320, (3, 3), 2, "VALID", name="branch3x3_2")(three)
        seven = _chain(x, "branch7x7x3", (192, (1, 1)), (192, (1, 7)), (192, (7, 1)))
        seven = Conv(192, (3, 3), 2, "VALID", name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, halving_pool(x)], axis=-1)


class MixedE(nn.Module):
    """Branches of 1×1, 3×3 and two 3×3 convolutions that end side by side as 1×3 and 3×1, and a pool, at 8×8."""

    pool: Literal["average", "max"]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w _"]) -> Float[Array, "b h w _"]:
        one = Conv(320, name="branch1x1")(x)
        three = _chain(x, "branch3x3", (384, (1, 1)))
        double = _chain(x, "branch3x3dbl", (448, (1, 1)), (384, (3, 3)))
        pool = Conv(192, name="branch_pool")({"average": average_pool, "max": max_pool}[self.pool](x))
        ends = [
            Conv(384, kernel, name=f"{name}{letter}")(y)
            for y, name in ((three, "branch3x3_2"), (double, "branch3x3dbl_3"))
            for letter, kernel in (("a", (1, 3)), ("b", (3, 1)))
        ]
        return jnp.concatenate([one, *ends, pool], axis=-1)


class InceptionV3(nn.Module):
    """Map images f32[b 299 299 3] in [-1, 1) to pooled features f32[b 2048] and logits f32[b 1008]."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b 2048"], Float[Array, "b 1008"]]:
        x = Conv(32, (3, 3), 2, "VALID", name="Conv2d_1a_3x3")(x)
        x = Conv(32, (3, 3), 1, "VALID", name="Conv2d_2a_3x3")(x)
        x = Conv(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = halving_pool(x)
        x = Conv(80, name="Conv2d_3b_1x1")(x)
        x = Conv(192, (3, 3), 1, "VALID", name="Conv2d_4a_3x3")(x)
        x = halving_pool(x)
        for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
            x = MixedA(pooled, name=f"Mixed_5{letter}")(x)
        x = MixedB(name="Mixed_6a")(x)
        for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
            x = MixedC(width, name=f"Mixed_6{letter}")(x)
        x = MixedD(name="Mixed_7a")(x)
        x = MixedE("average", name="Mixed_7b")(x)
        x = MixedE("max", name="Mixed_7c")(x)
        features = x.mean((1, 2))
        return features, nn.Dense(1008, precision=jax.lax.Precision.HIGHEST, name="fc")(features)


def resize(x: Float[Array, "b _ _ c"]) -> Float[Array, f"b {SIDE} {SIDE} c"]:
    """Resize as TensorFlow 1 did: linear between pixels' corners (output i reads i·side/299), without antialiasing."""
    for axis in (1, 2):
        side = x.shape[axis]
        place = np.arange(SIDE, dtype=np.float32) * np.float32(side / SIDE)  # in float32, as there
        low = place.astype(np.int32)
        shape = [SIDE if i == axis else 1 for i in range(4)]
        below, above = (jnp.take(x, i, axis=axis) for i in (low, np.minimum(low + 1, side - 1)))
        x = below + (above - below) * jnp.asarray(place - low).reshape(shape)
    return x


def preprocess(image: Float[Array, "b _ _ 3"]) -> Float[Array, f"b {SIDE} {SIDE} 3"]:
    """Bring images in [-1, 1], where 8-bit level i is i/127.5 - 1, to the net's input: (level - 128) / 128."""
    return (resize((image + 1.0) * 127.5) - 128.0) / 128.0
