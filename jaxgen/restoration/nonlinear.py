"""What damages pictures and is not linear: a curve that each value goes through, after any linear operator."""

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxgen.errors import check_field
from jaxgen.restoration.operators import Operator, Scale, norm


@runtime_checkable
class Curve(Protocol):
    """A function of one number, in the units of [-1, 1], with a derivative almost everywhere."""

    @property
    def steepest(self) -> float:
        """Return its largest slope."""
        ...

    def __call__(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]: ...


@struct.dataclass
class Response:
    """A linear operator, and then a curve, as a camera's or a film's; it has no adjoint."""

    curve: Curve = struct.field(pytree_node=False)
    after: Any = Scale(by=1.0)
    """An `Operator`."""

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._linear.measures(shape)

    def forward(self, x: Float[Array, "b *s"]) -> Float[Array, "b *m"]:
        return self.curve(self._linear.forward(x))

    def seen(self, y: Float[Array, "b *m"]) -> Float[Array, "b *m"]:
        return self._linear.seen(y)

    def steepest(self, x: Float[Array, "b *s"]) -> Float[Array, " b"]:
        """Return about how much faster it can change than pictures like these, for each row."""
        return self.curve.steepest * norm(self._linear, x)

    @property
    def _linear(self) -> Operator:
        return self.after


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """Values beyond two ends become these, as where a picture is over-exposed."""

    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        check_field(self, "low", self.low < self.high, "below `high`")

    @property
    def steepest(self) -> float:
        return 1.0

    def __call__(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        return jnp.clip(x, self.low, self.high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gamma:
    """A value u in [0, 1] becomes u to a power; straight lines go on below `toe` and above 1."""

    power: float
    toe: float = 0.02

    def __post_init__(self) -> None:
        check_field(self, "power", 0 < self.power < math.inf, "above 0")
        check_field(self, "toe", 0 < self.toe < 1, "between 0 and 1")

    @property
    def steepest(self) -> float:
        return max(self.power, self.toe ** (self.power - 1))

    def __call__(self, x: Float[Array, "*b"]) -> Float[Array, "*b"]:
        u = (x + 1) / 2
        inside = jnp.clip(u, self.toe, 1.0) ** self.power
        below = jnp.minimum(u - self.toe, 0.0) * self.toe ** (self.power - 1)
        return 2 * (inside + below + self.power * jnp.maximum(u - 1, 0.0)) - 1
