"""The generator of CycleGAN (arXiv:1703.10593, appendix 7.2; arXiv:1603.08155): residual blocks between resamplings."""

import dataclasses
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn.norm import instance_norm
from jaxgen.typing import Precision

Map = Float[Array, "b _ _ _"]

_start = nn.initializers.normal(0.02)  # of every kernel


@runtime_checkable
class Resampling(Protocol):
    """How maps are halved and doubled, each with a convolution of its own; called inside a compact method."""

    def halved(self, x: Map, width: int, dtype: Precision, name: str) -> tuple[Map, Map]:
        """Return the output of a convolution to so many channels, and its map of half the size, normalised."""
        ...

    def doubled(self, x: Map, width: int, dtype: Precision, name: str) -> Map:
        """Return a map of twice the size and so many channels, normalised."""
        ...


@dataclasses.dataclass(frozen=True)
class Strided:
    """Convolutions of stride 2, and transposed ones, as in CycleGAN."""

    def halved(self, x: Map, width: int, dtype: Precision, name: str) -> tuple[Map, Map]:
        raw = nn.Conv(width, (3, 3), strides=2, padding=1, use_bias=False, kernel_init=_start, dtype=dtype, name=name)(
            x
        )
        return raw, nn.relu(instance_norm(raw, dtype))

    def doubled(self, x: Map, width: int, dtype: Precision, name: str) -> Map:
        # A stride of 2, a padding of 1 and one more row and column at the end.
        up = nn.ConvTranspose(
            width, (3, 3), strides=(2, 2), padding=((1, 2), (1, 2)), use_bias=False, kernel_init=_start, dtype=dtype,
            name=name,
        )  # fmt: skip
        return nn.relu(instance_norm(up(x), dtype))


@dataclasses.dataclass(frozen=True)
class Antialiased:
    """Convolutions of stride 1 beside low-pass filters (arXiv:1904.11486), as in CUT (arXiv:2007.15651).

    Maps are halved after the filter [1, 2, 1] / 4 and doubled by [1, 3, 3, 1] / 4, which is linear interpolation.
    """

    def halved(self, x: Map, width: int, dtype: Precision, name: str) -> tuple[Map, Map]:
        raw = _conv3(x, width, dtype, name, "SAME")
        y = nn.relu(instance_norm(raw, dtype))
        for axis in (1, 2):
            padded = jnp.pad(y, [(int(i == axis), int(i == axis)) for i in range(4)], mode="reflect")
            n = y.shape[axis]
            part = [jax.lax.slice_in_dim(padded, i, i + n, 1, axis) for i in range(3)]
            y = jax.lax.slice_in_dim(0.25 * part[0] + 0.5 * part[1] + 0.25 * part[2], 0, n, 2, axis)
        return raw, y

    def doubled(self, x: Map, width: int, dtype: Precision, name: str) -> Map:
        b, h, w, c = x.shape
        x = jax.image.resize(x, (b, 2 * h, 2 * w, c), "linear")
        return nn.relu(instance_norm(_conv3(x, width, dtype, name, "SAME"), dtype))


def _conv3(x: Map, width: int, dtype: Precision, name: str, padding: str) -> Map:
    return nn.Conv(width, (3, 3), padding=padding, use_bias=False, kernel_init=_start, dtype=dtype, name=name)(x)


class ResnetGenerator(nn.Module):
    """Map images f32[b h w c] in [-1, 1] to images of their size: "ResNet-9" by default, "ResNet-6" with 6 blocks.

    Borders are reflected; each channel of each image is normalised by itself, in training and afterwards alike, without
    a scale. Convolutions before a norm have no bias, which the norm would take off again: the published net's, of
    11.378 million parameters, has 5,248 that do nothing. Raises UserError for images whose sides it cannot halve.
    """

    channels: int = 3
    """Of an image."""
    width: int = 64
    """Channels of the first map; each halving doubles them."""
    halvings: int = 2
    """Times that the maps are halved before the residual blocks, and doubled after them."""
    blocks: int = 9
    """Residual blocks: 9 for images of 256×256, 6 for 128×128."""
    resampling: Resampling = Strided()
    """How maps are halved and doubled: Strided() in CycleGAN, Antialiased() in CUT."""
    dtype: Precision = "float32"

    @property
    def factor(self) -> int:
        """What must divide the sides of an image."""
        return 2**self.halvings

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w n"]:
        del train
        return self._mapped(image)[0]

    def features(self, image: Float[Array, "b h w c"], *, train: bool) -> dict[str, Map]:
        """Return maps on the way to the middle, f32[b i j n] by name.

        "image" is the image, "halving0" … what the convolution of each halving returns, "block0" … each block's sum.
        """
        del train
        return self._mapped(image)[1]

    @nn.compact
    def _mapped(self, image: Map) -> tuple[Map, dict[str, Map]]:
        """Return the new images, and the maps by name; the compiler drops what is not used."""
        self._check(*image.shape[1:3])
        maps = {"image": image}
        widest = self.width * self.factor
        x = nn.relu(instance_norm(self._conv7(image, self.width, False, "in"), self.dtype))
        for i in range(self.halvings):
            maps[f"halving{i}"], x = self.resampling.halved(x, self.width * 2 ** (i + 1), self.dtype, f"down{i}")
        for i in range(self.blocks):
            y = nn.relu(instance_norm(_conv3(x, widest, self.dtype, f"block{i}_0", "REFLECT"), self.dtype))
            x = x + instance_norm(_conv3(y, widest, self.dtype, f"block{i}_1", "REFLECT"), self.dtype)
            maps[f"block{i}"] = x
        for i in range(self.halvings):
            x = self.resampling.doubled(x, widest // 2 ** (i + 1), self.dtype, f"up{i}")
        made = jnp.tanh(self._conv7(x, self.channels, True, "out").astype(jnp.float32))
        return made, {name: found.astype(jnp.float32) for name, found in maps.items()}

    def _conv7(self, x: Map, width: int, bias: bool, name: str) -> Map:
        return nn.Conv(
            width, (7, 7), padding="REFLECT", use_bias=bias, kernel_init=_start, dtype=self.dtype, name=name
        )(x)

    def _check(self, height: int, width: int) -> None:
        least = 2 * self.factor  # so that the middle has a border to reflect
        if height % self.factor or width % self.factor or min(height, width) < least:
            raise UserError(
                f"resnet generator: an image of {height}×{width} cannot be halved {self.halvings} times; its sides "
                f"must be multiples of {self.factor}, and {least} at least"
            )
