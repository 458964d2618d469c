"""The five quantities that a net may predict, each a linear form of x0 and eps, and their conversions to each other.

Together with z = alpha x0 + sigma eps any one of them gives x0 and eps, and so all others. Below, alpha and sigma
are f32[] or f32[b], one for each row of z f32[b *s].
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Data = Float[Array, " b *s"]
Level = Float[Array, "*l"]  # f32[] or f32[b]


class Quantity(abc.ABC):
    """A linear form of x0 and eps, and how x0 and eps follow from it and z.

    A method that has to divide by an alpha or sigma with an entry of 0 raises ValueError. Inside a traced program it
    cannot see zeros: there the result is not finite.
    """

    @abc.abstractmethod
    def of(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        """Return the quantity itself."""

    @abc.abstractmethod
    def x0(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        """Return x0 from the quantity's value."""

    @abc.abstractmethod
    def eps(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        """Return eps from the quantity's value."""

    @abc.abstractmethod
    def gain(self, alpha: Level, sigma: Level) -> Level:
        """Return |d x0 / d value| at fixed z: the factor from an error of the value to an error of x0."""

    def pair(self, value: Data, z: Data, alpha: Level, sigma: Level) -> tuple[Data, Data]:
        """Return (x0, eps) from the quantity's value."""
        return self.x0(value, z, alpha, sigma), self.eps(value, z, alpha, sigma)


@dataclasses.dataclass(frozen=True, kw_only=True)
class X0(Quantity):
    """The data; at sigma = 0 it says nothing about eps."""

    def of(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        return x0

    def x0(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return value

    def eps(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return (z - rows(alpha, z) * value) / rows(_divisor(sigma, "eps from x0", "sigma"), z)

    def gain(self, alpha: Level, sigma: Level) -> Level:
        return jnp.ones_like(alpha)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eps(Quantity):
    """The noise (DDPM, arXiv:2006.11239, equation 14); at alpha = 0 it says nothing about x0."""

    def of(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        return eps

    def x0(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return (z - rows(sigma, z) * value) / rows(_divisor(alpha, "x0 from eps", "alpha"), z)

    def eps(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return value

    def gain(self, alpha: Level, sigma: Level) -> Level:
        return sigma / _divisor(alpha, "x0 from eps", "alpha")


@dataclasses.dataclass(frozen=True, kw_only=True)
class V(Quantity):
    """v = alpha eps - sigma x0 (arXiv:2202.00512, section 4), at right angles to z: x0 and eps follow everywhere."""

    def of(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        return rows(alpha, x0) * eps - rows(sigma, x0) * x0

    def x0(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        length = alpha**2 + sigma**2
        return rows(alpha / length, z) * z - rows(sigma / length, z) * value

    def eps(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        length = alpha**2 + sigma**2
        return rows(sigma / length, z) * z + rows(alpha / length, z) * value

    def gain(self, alpha: Level, sigma: Level) -> Level:
        return sigma / (alpha**2 + sigma**2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score(Quantity):
    """The gradient of log p(z | x0), -eps / sigma (arXiv:2011.13456); it has no value at sigma = 0."""

    def of(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        return -eps / rows(_divisor(sigma, "the score", "sigma"), x0)

    def x0(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return (z + rows(sigma**2, z) * value) / rows(_divisor(alpha, "x0 from the score", "alpha"), z)

    def eps(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return -rows(sigma, z) * value

    def gain(self, alpha: Level, sigma: Level) -> Level:
        return sigma**2 / _divisor(alpha, "x0 from the score", "alpha")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Velocity(Quantity):
    """eps - x0, the speed of z on the path of straight lines (arXiv:2209.03003); x0 and eps follow everywhere."""

    def of(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        return eps - x0

    def x0(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return (z - rows(sigma, z) * value) / rows(alpha + sigma, z)

    def eps(self, value: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return (z + rows(alpha, z) * value) / rows(alpha + sigma, z)

    def gain(self, alpha: Level, sigma: Level) -> Level:
        return sigma / (alpha + sigma)


def convert(value: Data, z: Data, alpha: Level, sigma: Level, source: Quantity, target: Quantity) -> Data:
    """Convert a value of the `source` quantity to the `target` quantity.

    Raises ValueError where the conversion divides by 0: x0 from eps at alpha = 0, eps from x0 at sigma = 0.
    """
    if source == target:
        return value
    return target.of(*source.pair(value, z, alpha, sigma), alpha, sigma)


def rows(level: Level, like: Data) -> Float[Array, "..."]:
    """Reshape one number for each row so that it multiplies f32[b *s]; a single number stays as it is."""
    return level.reshape(level.shape + (1,) * (like.ndim - level.ndim)) if level.ndim else level


def _divisor(level: Level, what: str, name: str) -> Level:
    if not isinstance(level, jax.core.Tracer) and bool((level == 0).any()):
        raise ValueError(f"{what} divides by {name}, which is 0 here")
    return level
