"""Learning rates, and other strengths, as functions of the step."""

import dataclasses
import functools
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from jaxgen.errors import UserError, check_field


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

    def __post_init__(self) -> None:
        _check_share(self, "warmup", self.warmup)
        check_field(self, "end_factor", 0 <= self.end_factor < math.inf, "0 or more")

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

    def __post_init__(self) -> None:
        _check_share(self, "warmup", self.warmup)
        check_field(self, "end_factor", 0 <= self.end_factor < math.inf, "0 or more")
        check_field(self, "power", 0 < self.power < math.inf, "above 0")

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

    def __post_init__(self) -> None:
        check_field(self, "hold", self.hold >= 1, "a number of steps, at least 1")
        check_field(self, "warmup", self.warmup >= 0, "a number of steps, 0 or more")

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
    """Share of the training at which `last` is reached; 0 is at once."""

    def __post_init__(self) -> None:
        _check_share(self, "until", self.until)

    def over(self, steps: int) -> optax.Schedule:
        end = max(self.until * steps, 1.0)

        def rate(step: Any) -> Array:
            done = jnp.minimum(step / end, 1.0)
            return self.last + (self.first - self.last) * (0.5 + 0.5 * jnp.cos(jnp.pi * done))

        return rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
    """`peak` for a share of the training, then a straight line to 0, as in pix2pix and CycleGAN (arXiv:1703.10593)."""

    peak: float
    hold: float = 0.5
    """Share of the training before the fall."""

    def __post_init__(self) -> None:
        _check_share(self, "hold", self.hold)

    def over(self, steps: int) -> optax.Schedule:
        held = round(self.hold * steps)
        fall = optax.linear_schedule(self.peak, 0.0, max(steps - held, 1))
        return optax.join_schedules([optax.constant_schedule(self.peak), fall], [held]) if held else fall


@functools.cache  # asked whenever a state is traced, and each time the compiler would be called for every operation
def lowest(schedule: Schedule, steps: int) -> float:
    """Return the least of the schedule's values at nine steps of the training."""
    over = schedule.over(steps)
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        return min(float(jnp.asarray(over(step))) for step in np.linspace(0, steps, 9).round().astype(np.int32))


def check_schedule(owner: object, name: str, value: Any) -> None:
    """Raise UserError unless the field `name` of its owner is a schedule."""
    if not isinstance(value, Schedule):
        kind = type(owner).__name__
        raise UserError(f"{kind}.{name} is {value!r}; it must be a schedule, such as Constant(value={_number(value)})")


def _check_share(schedule: Schedule, name: str, value: float) -> None:
    need = "a share of the training, 0 to 1: for 500 of 1000 steps write 0.5"
    check_field(schedule, name, 0 <= value <= 1, need)


def _number(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else "0.001"
