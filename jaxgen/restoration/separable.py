"""Operators that act on rows and on columns alike: averaging and bicubic downsampling, and Gaussian blur.

Each is a small matrix for a side of n pixels, computed once on the host in float64; a picture is multiplied by it from
either side. So adjoint and pseudo-inverse are exact, with borders and all.
"""

import abc
import functools
import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from jaxgen.data.bicubic import mirrored, shrinking
from jaxgen.errors import UserError

Border = Literal["wrap", "mirror"]

LEAST = 1e-4  # singular values below this share of the largest count as 0 in a pseudo-inverse


class Separable(abc.ABC):
    """A matrix for the rows and one for the columns of f32[b h w c]. It is hashable."""

    @abc.abstractmethod
    def matrix(self, n: int) -> np.ndarray:
        """Return the matrix f64[m n] of a side of n pixels."""

    @abc.abstractmethod
    def before(self, m: int) -> int:
        """Return the side n of a picture whose measurement has a side of m."""

    @abc.abstractmethod
    def check(self, n: int) -> None:
        """Raise UserError unless a side of n pixels has a matrix."""

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3:
            raise UserError(f"{type(self).__name__} acts on pictures, not on arrays of {len(shape)} axes")
        for side in shape[:2]:
            self.check(side)
        return len(_matrix(self, shape[0])), len(_matrix(self, shape[1])), shape[2]

    def forward(self, x: Float[Array, "b h w c"]) -> Float[Array, "b i j c"]:
        return both(x, _matrix(self, x.shape[1]), _matrix(self, x.shape[2]))

    def adjoint(self, y: Float[Array, "b i j c"]) -> Float[Array, "b h w c"]:
        rows, columns = (_matrix(self, self.before(m)) for m in y.shape[1:3])
        return both(y, rows.T, columns.T)

    def seen(self, y: Float[Array, "b i j c"]) -> Float[Array, "b i j c"]:
        return y

    def pseudo_inverse(self, y: Float[Array, "b i j c"]) -> Float[Array, "b h w c"]:
        """Return A† y, where singular values below 1e-4 of the largest of a side count as 0."""
        rows, columns = (_inverse(self, self.before(m)) for m in y.shape[1:3])
        return both(y, rows, columns)


@functools.lru_cache(256)
def _matrix(operator: Separable, n: int) -> np.ndarray:
    return operator.matrix(n)


@functools.lru_cache(256)
def _inverse(operator: Separable, n: int) -> np.ndarray:
    return np.linalg.pinv(operator.matrix(n), rcond=LEAST)


def both(x: Float[Array, "b h w c"], rows: np.ndarray, columns: np.ndarray) -> Float[Array, "b i j c"]:
    """Multiply pictures by f64[i h] from the left and by f64[j w] from the right."""
    left, right = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    return jnp.einsum("ih,jw,bhwc->bijc", left, right, x, precision="highest")


@struct.dataclass
class _Down(Separable):
    """A picture whose sides are divided by a factor."""

    factor: int = struct.field(pytree_node=False)

    def check(self, n: int) -> None:
        if self.factor < 2 or n % self.factor:
            raise UserError(
                f"a factor of {self.factor} does not divide a side of {n} pixels into smaller ones; choose another"
            )

    def before(self, m: int) -> int:
        return m * self.factor


@struct.dataclass
class AverageDown(_Down):
    """The mean of each square of factor × factor pixels."""

    def matrix(self, n: int) -> np.ndarray:
        return np.kron(np.eye(n // self.factor), np.full((1, self.factor), 1 / self.factor))


@struct.dataclass
class BicubicDown(_Down):
    """Bicubic downsampling as MATLAB's imresize does it: antialiased, a = -1/2, pixels mirrored at the border.

    In most papers on super-resolution the small pictures were made so.
    """

    def matrix(self, n: int) -> np.ndarray:
        return shrinking(n, self.factor)


@struct.dataclass
class Blur(Separable):
    """Gaussian blur of a standard deviation in pixels."""

    sigma: float = struct.field(pytree_node=False)
    border: Border = struct.field(pytree_node=False, default="wrap")
    """What lies beyond: the other side, "wrap", or the picture mirrored, as scipy.ndimage's "reflect"."""

    def check(self, n: int) -> None:
        if not 0 < self.sigma < math.inf:
            raise UserError(f"a blur's width is a number of pixels above 0; got {self.sigma:g}")
        if 2 * self.sigma > n:
            raise UserError(f"a blur of {self.sigma:g} pixels leaves nothing of a picture whose side is {n}")

    def before(self, m: int) -> int:
        return m

    def matrix(self, n: int) -> np.ndarray:
        reach = math.ceil(8 * self.sigma)  # a Gaussian of 8 deviations is below a float's precision
        away = np.arange(-reach, reach + 1)
        kernel = np.exp(-0.5 * (away / self.sigma) ** 2)
        kernel /= kernel.sum()
        made = np.zeros((n, n))
        for i, row in enumerate(made):
            np.add.at(row, mirrored(i + away, n) if self.border == "mirror" else (i + away) % n, kernel)
        return made
