"""Zero-shot restoration: from a denoiser's estimate D to the estimate D_y that also knows a measurement y.

Where x0, given x, is about Gaussian with mean D and covariance V, and y = A x0 + noise of deviation s,

    D_y = D + V Aᵀ (A V Aᵀ + s² I)⁻¹ (y - A D).

It is a denoiser like any other, so every solver and guidance takes it. Methods differ in what stands for V, inside the
inverse and outside. By Tweedie's formula V is sigma² J, J being the derivative of D: that alone is exact for all
Gaussian data; `docs/restoration.md` shows what the others make of it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgen.errors import UserError, check_field
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.operators import Invertible, Operator

Rows = Float[Array, "b *s"]
Measured = Float[Array, "b *m"]
Linear = Callable[[Array], Array]

ENOUGH = 1e-5  # of a residual's length at the start: what rounding leaves of it
STEPS = 20  # of conjugate gradients where no net is called


@runtime_checkable
class Method(Protocol):
    """What stands for the covariance V of x0 given x."""

    def check(self, damage: Damage) -> None:
        """Raise UserError where this is no method for such damage."""
        ...

    def evaluations(self, sigma: float) -> int:
        """Return what it costs beside D, in products with the net's derivative; each takes about one evaluation."""
        ...

    def correction(self, pulled: Linear, damage: Damage, residual: Measured, sigma: Float[Array, ""]) -> Rows:
        """Return what is added to D; `pulled` multiplies rows by Jᵀ, and `residual` is y - A D.

        At sigma = inf, where J is of no use, it must be finite.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tweedie:
    """V = sigma² J: exact for Gaussian data, whatever its covariance (MMPS, arXiv:2405.13712).

    Conjugate gradients solve for each row on its own, by products with Jᵀ, which for an exact denoiser is J. At pure
    noise, where J says nothing, D stands as it is.
    """

    iterations: int = 8
    """Of conjugate gradients, each a product with the net's derivative; as many as numbers are measured are exact."""
    ridge: float = 0.0
    """Share of sigma² / (1 + sigma²) that is added to the noise's variance inside the inverse. A trained net's J is not
    quite a covariance, and without a ridge some samples run away."""
    high: float = math.inf
    """Noise level above which V is sigma² / (1 + sigma²) I instead. A trained net's J has errors, which sigma² makes
    larger than V itself where there is much more noise than data."""

    def __post_init__(self) -> None:
        check_field(self, "iterations", self.iterations >= 1, "at least 1")
        check_field(self, "ridge", self.ridge >= 0, "0 or more")
        check_field(self, "high", self.high > 0, "above 0")

    def check(self, damage: Damage) -> None:
        check_linear(damage)

    def evaluations(self, sigma: float) -> int:
        return self.iterations if sigma <= self.high else 0

    def correction(self, pulled: Linear, damage: Damage, residual: Measured, sigma: Float[Array, ""]) -> Rows:
        def by_derivative() -> Rows:
            square = _finite(sigma) ** 2
            lift = lambda v: square * pulled(damage.operator.adjoint(v))  # noqa: E731
            noise = damage.noise**2 + self.ridge / (1 + 1 / sigma**2)
            return solved(lift, damage.operator, residual, noise, self.iterations)

        if math.isinf(self.high):
            return by_derivative()
        high = jnp.asarray(self.high, sigma.dtype)
        return jax.lax.cond(
            sigma > high, lambda: isotropic(damage, residual, 1 / (1 + 1 / sigma**2)), by_derivative
        )  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class PiGdm:
    """V = r² I inside and sigma² Jᵀ outside, r² = d² sigma² / (d² + sigma²) (ΠGDM, Song et al., ICLR 2023).

    Exact only for data of covariance d² I.
    """

    data_std: float = 1.0
    """d; the paper's is 1."""

    def __post_init__(self) -> None:
        check_field(self, "data_std", self.data_std > 0, "above 0")

    def check(self, damage: Damage) -> None:
        check_linear(damage)

    def evaluations(self, sigma: float) -> int:
        return 1

    def correction(self, pulled: Linear, damage: Damage, residual: Measured, sigma: Float[Array, ""]) -> Rows:
        spread = 1 / (1 / self.data_std**2 + 1 / sigma**2)
        back = isotropic(damage, residual, spread)
        return _finite(sigma) ** 2 / spread * pulled(back)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffPir:
    """V = sigma² / weight I, without a derivative of the net (DiffPIR, arXiv:2305.08995).

    Exact only for data of covariance d² I where the noise is small; cheapest together with `Ddnm`.
    """

    weight: float = 1.0
    """The paper's lambda."""

    def __post_init__(self) -> None:
        check_field(self, "weight", self.weight > 0, "above 0")

    def check(self, damage: Damage) -> None:
        check_linear(damage)

    def evaluations(self, sigma: float) -> int:
        return 0

    def correction(self, pulled: Linear, damage: Damage, residual: Measured, sigma: Float[Array, ""]) -> Rows:
        return isotropic(damage, residual, sigma**2 / self.weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ddnm:
    """A† (y - A D): the measurement is taken as free of noise (DDNM, arXiv:2212.00490).

    Every estimate agrees with the measurement. Exact only for data of covariance d² I, without noise.
    """

    def check(self, damage: Damage) -> None:
        check_linear(damage)
        if not isinstance(damage.operator, Invertible):
            raise UserError(
                f"Ddnm needs a pseudo-inverse, which {type(damage.operator).__name__} does not have; use Tweedie()"
            )

    def evaluations(self, sigma: float) -> int:
        return 0

    def correction(self, pulled: Linear, damage: Damage, residual: Measured, sigma: Float[Array, ""]) -> Rows:
        return damage.operator.pseudo_inverse(residual)


TRAINED = Tweedie(iterations=4, ridge=0.03, high=2.0)  # for nets of pictures in [-1, 1]; see docs/restoration.md
METHODS: dict[str, type] = {"Ddnm": Ddnm, "DiffPir": DiffPir, "PiGdm": PiGdm, "Tweedie": Tweedie}


def check_linear(damage: Damage) -> None:
    """Raise UserError for damage that is not linear."""
    if not isinstance(damage.operator, Operator):
        raise UserError(f"{type(damage.operator).__name__} is not linear: draw by Daps() or SplitGibbs() instead")


def solved(lift: Linear, operator: Operator, residual: Measured, noise: Float[Array, ""], iterations: int) -> Rows:
    """Return lift((A lift + noise I)⁻¹ residual) by conjugate gradients, each row on its own; `lift` is V Aᵀ.

    A row stands still once its residual is a rounding error, and where V is found not to be a covariance.
    """
    least = ENOUGH**2 * _dot(residual, residual)

    def unsolved(carry: tuple[Any, ...]) -> Bool[Array, ""]:
        return (carry[0] < iterations) & (carry[-1] > least).any()

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        k, made, left, towards, size = carry
        lifted = lift(towards)
        product = operator.forward(lifted) + noise * towards
        curvature = _dot(towards, product)
        going = (curvature > 0) & (size > least)
        length = _ratio(size, curvature, going)
        left = left - _rows(length, left) * product
        after = _dot(left, left)
        share = _ratio(after, size, going)
        made = made + _rows(length, made) * lifted
        return k + 1, made, left, left + _rows(share, left) * towards, jnp.where(going, after, 0.0)

    nothing = jnp.zeros_like(operator.adjoint(residual))
    start = jnp.int32(0), nothing, residual, residual, _dot(residual, residual)
    return jax.lax.while_loop(unsolved, step, start)[1]


def isotropic(damage: Damage, residual: Measured, spread: Float[Array, ""]) -> Rows:
    """Return what `solved` does for V = spread · I."""
    noise = jnp.asarray(damage.noise**2, residual.dtype) / spread
    return solved(damage.operator.adjoint, damage.operator, residual, noise, STEPS)


def _finite(sigma: Float[Array, ""]) -> Float[Array, ""]:
    """Return 0 in the place of inf: there x is noise alone, and no derivative with respect to it says anything."""
    return jnp.where(jnp.isinf(sigma), 0.0, sigma).astype(sigma.dtype)


def _dot(a: Rows, b: Rows) -> Float[Array, " b"]:
    return (a * b).sum(tuple(range(1, a.ndim)))


def _ratio(a: Float[Array, " b"], b: Float[Array, " b"], where: Bool[Array, " b"]) -> Float[Array, " b"]:
    return jnp.where(where, a / jnp.where(where, b, 1.0), 0.0)


def _rows(one: Array, like: Array) -> Array:
    return one.reshape(one.shape + (1,) * (like.ndim - 1))
