"""Learning rates, and other strengths, as functions of the step."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import optax
from jaxtyping import Array


@runtime_checkable
class Schedule(Protocol):
    """A learning rate, or another strength, over a training of `steps` steps."""

    def over(self, steps: int) -> optax.Schedule: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The same value throughout."""

    value: float

    def over(self, steps: int) -> optax.Schedule:
        return optax.constant_schedule(self.value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up to `peak`, then half a cosine down to `peak * end_factor` (SGDR, arXiv:1608.03983, one cycle)."""

    peak: float
    warmup: float = 0.05
    """Share of the training spent rising from 0."""
    end_factor: float = 0.0
    """The last value, as a share of the peak."""

    def over(self, steps: int) -> optax.Schedule:
        rise = round(self.warmup * steps)
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if rise else self.peak,
            peak_value=self.peak,
            warmup_steps=rise,
            decay_steps=max(steps, rise + 1),
            end_value=self.peak * self.end_factor,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poly:
    """A fall as (1 - t/T)^power, the schedule of segmentation (DeepLab, arXiv:1606.00915, section 4.1)."""

    peak: float
    power: float = 0.9
    warmup: float = 0.0
    """Share of the training spent rising linearly from 0."""
    end_factor: float = 0.0
    """The last value, as a share of the peak."""

    def over(self, steps: int) -> optax.Schedule:
        rise = round(self.warmup * steps)
        fall = optax.polynomial_schedule(self.peak, self.peak * self.end_factor, self.power, max(steps - rise, 1))
        if not rise:
            return fall
        return optax.join_schedules([optax.linear_schedule(0.0, self.peak, rise), fall], [rise])


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseSqrt:
    """Linear warm-up, `peak` until step `hold`, then peak * sqrt(hold / step) (EDM2, arXiv:2312.02696, section 3)."""

    peak: float
    hold: int
    """Steps before the fall."""
    warmup: int = 0
    """Steps spent rising from 0."""

    def over(self, steps: int) -> optax.Schedule:
        def rate(step: Any) -> Array:
            rise = jnp.minimum(1.0, step / self.warmup) if self.warmup else jnp.float32(1.0)
            return self.peak * rise / jnp.sqrt(jnp.maximum(step / self.hold, 1.0))

        return rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineRamp:
    """Half a cosine from `first` to `last`, then `last`: the burn-in of R3GAN (arXiv:2501.05441, appendix D)."""

    first: float
    last: float
    until: float = 1.0
    """Share of the training at which `last` is reached."""

    def over(self, steps: int) -> optax.Schedule:
        end = max(self.until * steps, 1.0)

        def rate(step: Any) -> Array:
            done = jnp.minimum(step / end, 1.0)
            return self.last + (self.first - self.last) * (0.5 + 0.5 * jnp.cos(jnp.pi * done))

        return rate
