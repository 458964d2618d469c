"""Draws from N(x; mean, spread I) · p(y | x): at once where y is linear in x, by Hamiltonian Monte Carlo where not."""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.errors import UserError, check_field
from jaxgen.noise import fold, normal
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.methods import isotropic
from jaxgen.restoration.operators import Operator

Rows = Float[Array, "b *s"]
Measured = Float[Array, "n *m"]  # n = b, or 1 for all
Each = Float[Array, " b"]
Keys = Key[Array, " b"]


@runtime_checkable
class Measurement(Protocol):
    """A likelihood of pictures, exp(-‖residual‖² / (2 noise²)): `Damage`, `Rounded`."""

    @property
    def noise(self) -> float: ...

    def residual(self, x: Rows, measured: Measured) -> Float[Array, "b *m"]: ...

    def steepest(self, x: Rows) -> Each: ...


def is_linear(damage: Measurement) -> bool:
    """Whether y is linear in x but for Gaussian noise."""
    return isinstance(damage, Damage) and isinstance(damage.operator, Operator)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hamiltonian:
    """Hamiltonian Monte Carlo, each row on its own: exact after enough trajectories (arXiv:1206.1901, section 3.2).

    A step is as long as the steepest slope of p(y | x) allows, shorter the more numbers a picture has, and varies, so
    that no trajectory goes in circles.
    """

    trajectories: int = 4
    leaps: int = 16
    """Steps of a trajectory, each a gradient of the measurement; no net is called."""

    def __post_init__(self) -> None:
        check_field(self, "trajectories", self.trajectories >= 1, "at least 1")
        check_field(self, "leaps", self.leaps >= 1, "at least 1")

    def check(self, damage: Measurement) -> None:
        """Raise UserError for measurements without noise that are not linear."""
        if not is_linear(damage) and not damage.noise > 0:
            raise UserError("what is not linear needs noise above 0, such as 0.01: without it no step is small enough")

    def draw(
        self,
        damage: Measurement,
        measured: Measured,
        mean: Rows,
        spread: Float[Array, ""],
        start: Rows,
        keys: Keys,
        steepest: Each,
    ) -> Rows:
        """Return a draw for each row from its own key; `start` is where the trajectories begin."""
        if isinstance(damage, Damage) and is_linear(damage):
            return exact(damage, measured, mean, spread, keys)

        def energy(x: Rows) -> Each:
            return _squares(x - mean) / (2 * spread) + _squares(damage.residual(x, measured)) / (2 * damage.noise**2)

        slope = jax.grad(lambda x: energy(x).sum())
        longest = min(1.0, 2 * math.prod(mean.shape[1:]) ** -0.25) / jnp.sqrt(
            1 / spread + jnp.square(steepest / damage.noise)
        )

        def trajectory(k: Array, x: Rows) -> Rows:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
            chance = jax.vmap(lambda key: jax.random.uniform(key, (2,), x.dtype))(fold(own, 0))
            pushed = normal(own, 1, x.shape[1:]).astype(x.dtype)
            step = (longest * (0.5 + 0.5 * chance[:, 0])).reshape(-1, *(1,) * (x.ndim - 1))

            def leap(_: Array, state: tuple[Rows, Rows]) -> tuple[Rows, Rows]:
                at, momentum = state
                at = at + step * momentum
                return at, momentum - step * slope(at)

            half = pushed - 0.5 * step * slope(x)
            end, momentum = jax.lax.fori_loop(0, self.leaps, leap, (x, half))
            momentum = momentum + 0.5 * step * slope(end)
            risen = energy(end) + _squares(momentum) / 2 - energy(x) - _squares(pushed) / 2
            taken = jnp.log(chance[:, 1]) < -risen  # not where it is NaN
            return jnp.where(taken.reshape(step.shape), end, x)

        return jax.lax.fori_loop(0, self.trajectories, trajectory, start)


def exact(damage: Damage, measured: Measured, mean: Rows, spread: Float[Array, ""], keys: Keys) -> Rows:
    """Return a draw for each row: of the prior, moved by what the measurement says of it (arXiv:2305.08995's step).

    x̃ + K (y + noise - A x̃) with x̃ from N(mean, spread I) has the posterior's mean and covariance.
    """
    prior = mean + jnp.sqrt(spread) * normal(keys, 0, mean.shape[1:]).astype(mean.dtype)
    there = damage.residual(prior, measured)
    noise = damage.noise * normal(keys, 1, there.shape[1:]).astype(mean.dtype)
    return prior + isotropic(damage, there + damage.operator.seen(noise), spread)


def _squares(x: Array) -> Each:
    return jnp.square(x).sum(tuple(range(1, x.ndim)))
