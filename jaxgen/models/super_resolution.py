"""Nets that restore images or enlarge them: SRResNet without norms, the compact net of Real-ESRGAN, and RRDBNet.

As in BasicSR: images in [-1, 1] are taken to [0, 1], where the published weights know them, and back at the end. A net
for a scale of 1, and RRDBNet for 2, sees squares of pixels as channels first.
"""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn.fold import to_depth, to_space
from jaxgen.nn.spectral import spectral
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]
Images = Float[Array, "b h w c"]
Scale = Literal[1, 2, 3, 4]

_small = nn.initializers.variance_scaling(0.02, "fan_in", "normal")  # He's deviation, times 0.1


def _unit(image: Map) -> Map:
    """Map [-1, 1] to [0, 1]."""
    return image / 2 + 0.5


def _signed(image: Map) -> Map:
    return 2 * image - 1


def repeated(x: Map, factor: int) -> Map:
    """Enlarge by the nearest pixel."""
    b, h, w, c = x.shape
    cells = jnp.broadcast_to(x[:, :, None, :, None], (b, h, factor, w, factor, c))
    return cells.reshape(b, h * factor, w * factor, c)


class Compact(nn.Module):
    """Restore f32[b h w c] to f32[b h·scale w·scale c]: convolutions at the small size alone, then one shuffle.

    SRVGGNetCompact of Real-ESRGAN (arXiv:2107.10833): it adds what it finds to the nearest pixel. With `folded`,
    squares of so many pixels are channels in between, which sees as much farther and costs as much less.
    """

    channels: int = 3
    """Of the images."""
    scale: Scale = 4
    features: int = 64
    """Channels of the maps."""
    convolutions: int = 16
    """Between the first and the last."""
    folded: int = 1
    """Side of the squares of pixels that are one place of a map."""
    dtype: Precision = "float32"

    @property
    def factor(self) -> int:
        return self.folded

    @nn.compact
    def __call__(self, image: Images, *, train: bool) -> Map:
        del train
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, dtype=self.dtype)
        image = _unit(image)
        x = to_depth(image, self.folded)
        for i in range(self.convolutions + 1):
            x = conv(self.features, name=f"conv{i}")(x)
            slope = self.param(f"slope{i}", nn.initializers.constant(0.25), (self.features,))
            x = jnp.where(x >= 0, x, slope.astype(x.dtype)[None, None, None] * x)
        # Zero at first: the untrained net is the interpolation.
        last = conv(self.channels * (self.scale * self.folded) ** 2, kernel_init=nn.initializers.zeros, name="last")
        x = to_space(last(x).astype(jnp.float32), self.scale * self.folded)
        return _signed(x + repeated(image, self.scale))


class SrResNet(nn.Module):
    """SRResNet (arXiv:1609.04802) without norms, as in BasicSR: it adds what it finds to the bilinear enlargement."""

    channels: int = 3
    """Of the images."""
    scale: Scale = 4
    features: int = 64
    """Channels of the maps."""
    blocks: int = 16
    """Residual blocks of two convolutions."""
    dtype: Precision = "float32"
    factor: int = 1
    """It takes any size."""

    @nn.compact
    def __call__(self, image: Images, *, train: bool) -> Map:
        del train
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, kernel_init=_small, dtype=self.dtype)
        leaky = functools.partial(nn.leaky_relu, negative_slope=0.1)
        image = _unit(image)
        x = leaky(conv(self.features, name="first")(image))
        for i in range(self.blocks):
            y = nn.relu(conv(self.features, name=f"block{i}_conv0")(x))
            x = x + conv(self.features, name=f"block{i}_conv1")(y)
        for i, step in enumerate(_steps(self.scale)):
            x = leaky(to_space(conv(self.features * step**2, name=f"up{i}")(x), step))
        x = leaky(conv(self.features, name="high")(x))
        b, h, w, c = image.shape
        larger = jax.image.resize(image, (b, h * self.scale, w * self.scale, c), "bilinear")
        return _signed(conv(self.channels, name="last")(x).astype(jnp.float32) + larger)


class Rrdb(nn.Module):
    """RRDBNet of ESRGAN (arXiv:1809.00219): dense blocks inside residual blocks, enlarged by the nearest pixel.

    16.7 M parameters at these sizes. For a scale of 2 squares of 2×2 pixels are channels, of 1 those of 4×4
    (arXiv:2107.10833), so that they all enlarge their maps four times.
    """

    channels: int = 3
    """Of the images."""
    scale: Literal[1, 2, 4] = 4
    features: int = 64
    """Channels of the maps."""
    growth: int = 32
    """Channels that each convolution of a dense block adds."""
    blocks: int = 23
    """Each of three dense blocks."""
    remat: bool = False
    """Recompute each block in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"

    @property
    def factor(self) -> int:
        return 4 // self.scale

    @nn.compact
    def __call__(self, image: Images, *, train: bool) -> Map:
        del train
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, dtype=self.dtype)
        x = first = conv(self.features, name="first")(to_depth(_unit(image), self.factor))
        block = nn.remat(_Dense3) if self.remat else _Dense3
        for i in range(self.blocks):
            x = block(self.features, self.growth, self.dtype, name=f"block{i}")(x)
        x = first + conv(self.features, name="body")(x)
        for i in range(2):
            x = _leaky(conv(self.features, name=f"up{i}")(repeated(x, 2)))
        x = _leaky(conv(self.features, name="high")(x))
        return _signed(conv(self.channels, name="last")(x).astype(jnp.float32))


class _Dense3(nn.Module):
    """Three dense blocks of five convolutions, each residual, and residual together."""

    features: int
    growth: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Map:
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), padding=1, kernel_init=_small, dtype=self.dtype)
        y = x
        for i in range(3):
            maps = [y]
            for j in range(4):
                maps.append(_leaky(conv(self.growth, name=f"dense{i}_conv{j}")(jnp.concatenate(maps, axis=-1))))
            y = y + 0.2 * conv(self.features, name=f"dense{i}_conv4")(jnp.concatenate(maps, axis=-1))
        return x + 0.2 * y


class UNetDiscriminator(nn.Module):
    """Map images f32[b h w c] in [-1, 1] to a logit for each pixel, f32[b h w] (arXiv:2107.10833, section 3.3).

    Three halvings, three doublings whose maps are added to those on the way, and spectral normalisation throughout.
    Raises UserError for sides that eight does not divide.
    """

    width: int = 64
    """Channels of the first map; each halving doubles them."""
    dtype: Precision = "float32"
    classes: int = 0
    """It takes no label."""

    @nn.compact
    def __call__(self, image: Images, condition: Condition, *, train: bool) -> Float[Array, "b h w"]:
        del condition
        _check_eighths(*image.shape[1:3])

        def conv(x: Map, times: int, name: str, stride: int = 1) -> Map:
            side = 4 if stride == 2 else 3
            layer = nn.Conv(
                self.width * times, (side, side), stride, padding=1, use_bias=False, dtype=self.dtype, name=name
            )
            return _leaky(spectral(layer, x, train=train))

        x = image.astype(self.dtype)
        x = _leaky(nn.Conv(self.width, (3, 3), padding=1, dtype=self.dtype, name="first")(x))
        on_the_way = []
        for i in range(3):
            on_the_way.append(x)
            x = conv(x, 2 ** (i + 1), f"down{i}", stride=2)
        for i in reversed(range(3)):
            b, h, w, c = x.shape
            x = jax.image.resize(x, (b, 2 * h, 2 * w, c), "bilinear")
            x = conv(x, 2**i, f"up{i}") + on_the_way[i]
        x = conv(conv(x, 1, "high0"), 1, "high1")
        return nn.Conv(1, (3, 3), padding=1, dtype=self.dtype, name="last")(x)[..., 0].astype(jnp.float32)


def _leaky(x: Map) -> Map:
    return nn.leaky_relu(x, negative_slope=0.2)


def _steps(scale: int) -> tuple[int, ...]:
    """The factors by which a net enlarges in turn."""
    return {1: (), 2: (2,), 3: (3,), 4: (2, 2)}[scale]


def _check_eighths(height: int, width: int) -> None:
    if height % 8 or width % 8:
        raise UserError(f"the U-Net discriminator halves three times: sides are multiples of 8, not {height}×{width}")
