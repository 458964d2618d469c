"""Moving averages of weights as values, and the reconstruction of averages that nobody kept while training."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxgen.errors import UserError, check_field

UNFORGOTTEN = 0.05  # share of the first weights in the last average from which on it is worth a note


@runtime_checkable
class Ema(Protocol):
    """An exponential moving average of weights: how much of it stays at each step."""

    def decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Return d in ema <- d·ema + (1 - d)·params after the update that follows `step` others."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConstantEma:
    """The same decay at every step."""

    decay: float
    """Share of the average that stays at each step, at least 0 and below 1."""

    def __post_init__(self) -> None:
        check_field(self, "decay", 0 <= self.decay < 1, "at least 0 and below 1")

    def decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.float32(self.decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupEma:
    """A decay that rises as (1 + t) / (10 + t) to its final value, to forget the first weights soon.

    As in tf.train.ExponentialMovingAverage with num_updates.
    """

    decay: float
    """Its final value, at least 0 and below 1."""

    def __post_init__(self) -> None:
        check_field(self, "decay", 0 <= self.decay < 1, "at least 0 and below 1")

    def decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.minimum(self.decay, (1.0 + step) / (10.0 + step))


@dataclasses.dataclass(frozen=True, kw_only=True)
class HalfLifeEma:
    """An average in which a step's weight halves every so many steps; the half-life grows with the training.

    In EDM (arXiv:2206.00364, training loop) and StyleGAN it is at most `ramp` times the training so far.
    """

    steps: float
    """Half-life in steps: images of half-life / batch size."""
    ramp: float = 0.05
    """The half-life is at most this share of the steps so far; 0 sets no such bound."""

    def __post_init__(self) -> None:
        check_field(self, "steps", 0 < self.steps < math.inf, "above 0")
        check_field(self, "ramp", 0 <= self.ramp < math.inf, "0 or more")

    def decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        life = jnp.minimum(self.steps, self.ramp * step) if self.ramp else self.steps
        return jnp.float32(0.5) ** (1.0 / jnp.maximum(life, 1e-8))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RampedHalfLifeEma:
    """An average whose half-life rises from 0 along half a cosine (R3GAN, arXiv:2501.05441, appendix D)."""

    steps: float
    """Half-life in steps at last: images of half-life / batch size."""
    until: float
    """Step at which it is reached."""

    def __post_init__(self) -> None:
        check_field(self, "steps", 0 < self.steps < math.inf, "above 0")
        check_field(self, "until", 0 < self.until < math.inf, "a number of steps above 0")

    def decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        life = self.steps * (0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(step / self.until, 1.0)))
        return jnp.float32(0.5) ** (1.0 / jnp.maximum(life, 1e-8))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerEma:
    """An average whose profile over the training is a power function of time, at any length (EDM2, arXiv:2312.02696).

    The first step's weights replace what the average began with, so that it never holds untrained weights.
    """

    width: float
    """Standard deviation of the profile as a share of the training so far (sigma_rel), above 0 and below 0.288."""

    def __post_init__(self) -> None:
        exponent(self.width)

    def decay_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
        # float32 tells 1 - 1/t from 1 up to ten million steps.
        return (1.0 - 1.0 / (step + 1.0)) ** (exponent(self.width) + 1.0)


def initial_share(ema: Ema, steps: int) -> float:
    """Return how much of the average after so many steps is still the weights that it began with, 0 to 1."""
    with np.errstate(divide="ignore"):  # a decay of 0 forgets all
        return float(np.exp(np.log(np.asarray(jax.vmap(ema.decay_at)(jnp.arange(steps)), np.float64)).sum()))


def notes(net: str, emas: Sequence[Ema], steps: int) -> list[str]:
    """Return what to say, before the first of so many steps, of averages that will hardly leave their first weights."""
    shares = [(ema, initial_share(ema, steps)) for ema in emas]
    return [
        f"note: after {steps} steps, the {net}'s {ema} is still {share:.0%} the weights that it began with; "
        "train longer, lower the decay, or use WarmupEma"
        for ema, share in shares
        if share > UNFORGOTTEN
    ]


def exponent(width: float) -> float:
    """Return the power function's exponent g of a profile's relative width.

    From the profile's variance, (g + 1) / ((g + 2)² (g + 3)) (EDM2, arXiv:2312.02696, appendix C).

    Raises UserError for widths that no exponent >= 0 has.
    """
    if not 0 < width <= 12**-0.5:
        raise UserError(f"an average's relative width lies above 0 and below {12**-0.5:.3f}; got {width}")
    t = width**-2
    roots = np.roots([1.0, 7.0, 16.0 - t, 12.0 - t])
    return float(roots.real.max())


def reconstruction(stored: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> Float[np.ndarray, " n"]:
    """Return the factors by which stored averages add up to the one that was not kept (EDM2, appendix C).

    `stored` and `wanted` hold (steps done, relative width). The factors make the profiles' squared difference least.
    """
    times = np.array([t for t, _ in stored], np.float64)
    powers = np.array([exponent(width) for _, width in stored])
    gram = _overlap(times[:, None], powers[:, None], times[None], powers[None])
    goal = _overlap(times, powers, float(wanted[0]), exponent(wanted[1]))
    return np.linalg.lstsq(gram, goal, rcond=1e-13)[0]


def distance(
    stored: Sequence[tuple[float, float]], factors: Float[np.ndarray, " n"], wanted: tuple[float, float]
) -> float:
    """Return the norm of (reconstructed - wanted profile) as a share of the wanted profile's norm."""
    times = np.array([t for t, _ in stored], np.float64)
    powers = np.array([exponent(width) for _, width in stored])
    own = _overlap(float(wanted[0]), exponent(wanted[1]), float(wanted[0]), exponent(wanted[1]))
    gram = _overlap(times[:, None], powers[:, None], times[None], powers[None])
    goal = _overlap(times, powers, float(wanted[0]), exponent(wanted[1]))
    return float(np.sqrt(max(factors @ gram @ factors - 2 * factors @ goal + own, 0.0) / own))


def _overlap(t1: np.ndarray | float, g1: np.ndarray | float, t2: np.ndarray | float, g2: np.ndarray | float):
    """The integral over time of two profiles p(s) = (gamma + 1) s^gamma / t^(gamma + 1), s <= t."""
    t1, t2, g1, g2 = np.float64(t1), np.float64(t2), np.float64(g1), np.float64(g2)
    # Over s <= min(t1, t2); ratios, not powers of the times themselves, which would overflow.
    early, late = np.minimum(t1, t2), np.maximum(t1, t2)
    ratio = (early / late) ** np.where(t1 < t2, g2, g1)
    return (g1 + 1) * (g2 + 1) * ratio / ((g1 + g2 + 1) * late)
