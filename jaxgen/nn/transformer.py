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


@dataclasses.dataclass(frozen=True)
class Patches:
    """Patches that images are cut into, row by row; each is a vector, of its pixels row by row."""

    rows: int
    columns: int
    height: int
    """Of a patch, in pixels."""
    width: int

    @classmethod
    def of(cls, net: str, height: int, width: int, size: int | tuple[int, int]) -> "Patches":
        """Cut images of this height and width into patches of this side, or height and width.

        Raises UserError unless they divide evenly; `net` begins the message.
        """
        p, q = (size, size) if isinstance(size, int) else size
        if p < 1 or q < 1:
            raise UserError(f"{net}: patches of {size}; sides are at least 1")
        if height % p or width % q:
            fit = f"{math.ceil(height / p) * p} × {math.ceil(width / q) * q}"
            named = f"{p}" if p == q else f"{p} × {q}"
            raise UserError(f"{net}: {height} × {width} does not split into patches of {named}; {fit} does")
        return cls(height // p, width // q, p, q)

    @property
    def pixels(self) -> int:
        return self.height * self.width

    def cut(self, x: Float[Array, "b h w c"]) -> Float[Array, "b n p"]:
        cells = x.reshape(len(x), self.rows, self.height, self.columns, self.width, x.shape[-1]).swapaxes(2, 3)
        return cells.reshape(len(x), self.rows * self.columns, -1)

    def join(self, patches: Float[Array, "b n p"]) -> Float[Array, "b h w c"]:
        """Put images together again."""
        channels = patches.shape[-1] // self.pixels
        cells = patches.reshape(-1, self.rows, self.columns, self.height, self.width, channels).swapaxes(2, 3)
        return cells.reshape(-1, self.rows * self.height, self.columns * self.width, channels)


def check_heads(net: str, width: int, heads: int) -> None:
    """Raise UserError unless heads share the width evenly; `net` begins the message."""
    if heads < 1 or width % heads:
        raise UserError(f"{net}: {heads} heads do not share a width of {width} evenly; take a divisor of it")
