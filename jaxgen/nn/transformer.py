"""What transformers of images are made of: dense layers, norms and MLPs as values, and patches."""

import dataclasses
import functools
import math
from typing import Protocol, runtime_checkable

import flax.linen as nn
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.typing import Precision

Dense = functools.partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())
DenseGeneral = functools.partial(nn.DenseGeneral, kernel_init=nn.initializers.xavier_uniform())
ZeroDense = functools.partial(nn.Dense, kernel_init=nn.initializers.zeros)


@runtime_checkable
class Norm(Protocol):
    """How vectors along the last axis are normalised; called inside a compact method."""

    def __call__(self, x: Float[Array, "*b c"], *, dtype: Precision, name: str) -> Float[Array, "*b c"]: ...


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Mean 0 and variance 1 (arXiv:1607.06450)."""

    epsilon: float = 1e-6
    learned: bool = False
    """Whether a scale and a bias follow; the blocks' adaLN makes up for them, queries and keys have none."""

    def __call__(self, x: Float[Array, "*b c"], *, dtype: Precision, name: str) -> Float[Array, "*b c"]:
        return nn.LayerNorm(self.epsilon, dtype=dtype, use_bias=self.learned, use_scale=self.learned, name=name)(x)


@dataclasses.dataclass(frozen=True)
class RmsNorm:
    """Mean square 1, then a learned scale (arXiv:1910.07467)."""

    epsilon: float = 1e-6

    def __call__(self, x: Float[Array, "*b c"], *, dtype: Precision, name: str) -> Float[Array, "*b c"]:
        return nn.RMSNorm(self.epsilon, dtype=dtype, name=name)(x)


@runtime_checkable
class Mlp(Protocol):
    """What a block applies to each token on its own; called inside a compact method."""

    def __call__(self, x: Float[Array, "b n c"], *, dtype: Precision) -> Float[Array, "b n c"]: ...


@dataclasses.dataclass(frozen=True)
class Gelu:
    """Two layers with GELU in its tanh form between."""

    ratio: float = 4.0
    """Hidden channels over channels."""

    def __call__(self, x: Float[Array, "b n c"], *, dtype: Precision) -> Float[Array, "b n c"]:
        y = Dense(int(x.shape[-1] * self.ratio), dtype=dtype, name="up")(x)
        return Dense(x.shape[-1], dtype=dtype, name="down")(nn.gelu(y, approximate=True))


@dataclasses.dataclass(frozen=True)
class SwiGlu:
    """Two layers, the hidden one the product of a linear map and the SiLU of another (arXiv:2002.05202)."""

    ratio: float = 4.0
    """Hidden channels over channels of the Gelu with as many weights; here they are two thirds of it."""

    def __call__(self, x: Float[Array, "b n c"], *, dtype: Precision) -> Float[Array, "b n c"]:
        hidden = int(2 * x.shape[-1] * self.ratio / 3)
        # Gate and value lie on an axis of their own, so that hidden channels can be split over devices in one piece.
        both = DenseGeneral((2, hidden), dtype=dtype, name="up")(x)
        return Dense(x.shape[-1], dtype=dtype, name="down")(nn.silu(both[..., 0, :]) * both[..., 1, :])


def modulate(x: Float[Array, "b n c"], shift: Float[Array, "b c"], scale: Float[Array, "b c"]) -> Float[Array, "b n c"]:
    """Scale and shift all tokens of an image alike; a scale of 0 leaves them as they are."""
    return x * (1 + scale[:, None]) + shift[:, None]


def to_patches(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b n p"]:
    """Cut images into squares, row by row; each becomes a vector, of its pixels row by row."""
    b, height, width, channels = x.shape
    rows, columns = height // size, width // size
    return x.reshape(b, rows, size, columns, size, channels).swapaxes(2, 3).reshape(b, rows * columns, -1)


def from_patches(patches: Float[Array, "b n p"], height: int, width: int, size: int) -> Float[Array, "b h w c"]:
    """Put images of this height and width together again."""
    grid = patches.reshape(-1, height // size, width // size, size, size, patches.shape[-1] // size**2)
    return grid.swapaxes(2, 3).reshape(-1, height, width, grid.shape[-1])


def check_patches(net: str, height: int, width: int, size: int) -> None:
    """Raise UserError unless images divide into patches evenly; `net` begins the message."""
    if height % size or width % size:
        fit = " × ".join(str(math.ceil(n / size) * size) for n in (height, width))
        raise UserError(f"{net}: {height} × {width} does not split into patches of {size}; {fit} does")


def check_heads(net: str, width: int, heads: int) -> None:
    """Raise UserError unless heads share the width evenly; `net` begins the message."""
    if heads < 1 or width % heads:
        raise UserError(f"{net}: {heads} heads do not share a width of {width} evenly; take a divisor of it")
