"""What damages pictures linearly, as values: forward, adjoint, and pseudo-inverse where there is one.

Pictures and measurements are rows, f32[b *s] and f32[b *m]; no operator couples two rows. An array that an operator
holds has rows too, or a single one for all.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from jaxgen.errors import UserError

LUMA = (0.299, 0.587, 0.114)  # shares of red, green and blue in grey (BT.601), as files are read
POWER = 20  # iterations to find the norm of an operator


@runtime_checkable
class Operator(Protocol):
    """A linear map from pictures to measurements."""

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a measurement of a picture of this shape.

        Raises UserError where there is none.
        """
        ...

    def forward(self, x: Float[Array, "b *s"]) -> Float[Array, "b *m"]:
        """Return A x."""
        ...

    def adjoint(self, y: Float[Array, "b *m"]) -> Float[Array, "b *s"]:
        """Return Aᵀ y."""
        ...

    def seen(self, y: Float[Array, "b *m"]) -> Float[Array, "b *m"]:
        """Return measurements with 0 where A x is 0 for all pictures: in holes."""
        ...


@runtime_checkable
class Invertible(Operator, Protocol):
    """An operator whose pseudo-inverse is known."""

    def pseudo_inverse(self, y: Float[Array, "b *m"]) -> Float[Array, "b *s"]:
        """Return A† y, the smallest of the pictures whose measurements are nearest to y."""
        ...


@struct.dataclass
class Mask:
    """Keeps some numbers of a picture, and makes the others 0."""

    keep: Any
    """f32[n *s]: 1 for what is kept and 0 for holes; n = 1 for all pictures, or a row for each."""

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(self.keep.shape[1:]) != tuple(shape):
            raise UserError(
                f"the mask is {_by(self.keep.shape[1:])}, and the picture {_by(shape)}; draw it at its size"
            )
        return shape

    def forward(self, x: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return jnp.where(self.keep > 0, x, 0.0)

    def adjoint(self, y: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return self.forward(y)

    def seen(self, y: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return self.forward(y)

    def pseudo_inverse(self, y: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return self.forward(y)


@struct.dataclass
class Scale:
    """Multiplies by a number, as fading does."""

    by: float = struct.field(pytree_node=False)

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def forward(self, x: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return self.by * x

    def adjoint(self, y: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return self.by * y

    def seen(self, y: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return y

    def pseudo_inverse(self, y: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return y / self.by if self.by else jnp.zeros_like(y)


@struct.dataclass
class Grey:
    """Makes red, green and blue, the last axis, one channel."""

    weights: tuple[float, float, float] = struct.field(pytree_node=False, default=LUMA)

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if shape[-1] != 3:
            raise UserError(f"grey is made of three colours, and these pictures have {shape[-1]} channel(s)")
        return (*shape[:-1], 1)

    def forward(self, x: Float[Array, "b *s 3"]) -> Float[Array, "b *s 1"]:
        return (x * self._row(x)).sum(-1, keepdims=True)

    def adjoint(self, y: Float[Array, "b *s 1"]) -> Float[Array, "b *s 3"]:
        return y * self._row(y)

    def seen(self, y: Float[Array, "b *s 1"]) -> Float[Array, "b *s 1"]:
        return y

    def pseudo_inverse(self, y: Float[Array, "b *s 1"]) -> Float[Array, "b *s 3"]:
        return self.adjoint(y) / sum(share**2 for share in self.weights)

    def _row(self, like: Array) -> Array:
        return jnp.asarray(self.weights, like.dtype).reshape((1,) * (like.ndim - 1) + (3,))


@struct.dataclass
class Dense:
    """Any matrix, of vectors."""

    matrix: Any
    """f32[m d]"""

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(shape) != (self.matrix.shape[1],):
            raise UserError(f"the matrix takes vectors of {self.matrix.shape[1]} numbers, not arrays of {_by(shape)}")
        return (self.matrix.shape[0],)

    def forward(self, x: Float[Array, "b d"]) -> Float[Array, "b m"]:
        return jnp.matmul(x, self.matrix.T, precision="highest")

    def adjoint(self, y: Float[Array, "b m"]) -> Float[Array, "b d"]:
        return jnp.matmul(y, self.matrix, precision="highest")

    def seen(self, y: Float[Array, "b m"]) -> Float[Array, "b m"]:
        return y

    def pseudo_inverse(self, y: Float[Array, "b m"]) -> Float[Array, "b d"]:
        return jnp.matmul(y, jnp.linalg.pinv(self.matrix).T, precision="highest")


@struct.dataclass
class Composed:
    """Several operators one after the other, the first one first."""

    parts: tuple[Any, ...]

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        for part in self.parts:
            shape = part.measures(shape)
        return shape

    def forward(self, x: Float[Array, "b *s"]) -> Float[Array, "b *m"]:
        for part in self.parts:
            x = part.forward(x)
        return x

    def adjoint(self, y: Float[Array, "b *m"]) -> Float[Array, "b *s"]:
        for part in reversed(self.parts):
            y = part.adjoint(y)
        return y

    def seen(self, y: Float[Array, "b *m"]) -> Float[Array, "b *m"]:
        return self.parts[-1].seen(y)


def matrix_of(operator: Operator, shape: tuple[int, ...]) -> np.ndarray:
    """Return an operator's matrix f64[m d] for pictures of this shape, with a row of zeros for each hole."""
    size = math.prod(shape)
    columns = operator.forward(jnp.eye(size).reshape(size, *shape))
    return np.asarray(columns, np.float64).reshape(size, -1).T


def norm(operator: Operator, x: Float[Array, "b *s"]) -> Float[Array, " b"]:
    """Return the largest of ‖A u‖ / ‖u‖ for pictures like these, for each row: by power iteration, within some percent.

    What the pictures show does not matter, only their shape.
    """
    u = jnp.broadcast_to(jax.random.normal(jax.random.key(0), x.shape[1:], x.dtype)[None], x.shape)
    length = lambda u: jnp.sqrt(jnp.square(u).sum(tuple(range(1, u.ndim)), keepdims=True))  # noqa: E731

    def again(_: Any, u: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
        return operator.adjoint(operator.forward(u / jnp.maximum(length(u), 1e-30)))

    return jnp.sqrt(length(jax.lax.fori_loop(0, POWER, again, u)).reshape(-1))


def count(operator: Operator, shape: tuple[int, ...]) -> int:
    """Return how many numbers are measured of a picture of this shape, without those in holes."""
    whole = jax.eval_shape(operator.forward, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return int(operator.seen(jnp.ones(whole.shape)).sum())


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
