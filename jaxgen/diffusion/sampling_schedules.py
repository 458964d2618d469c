"""Sampling schedules: the noise levels that a sampler visits, on the host in float64.

A noise level is a ratio sigma / alpha, which also exists between the whole times of a table of betas: no two levels of
a schedule are ever equal, however many steps it has.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from jaxgen.diffusion.path import Discrete, Path, ratio, ratios
from jaxgen.errors import UserError


@runtime_checkable
class SamplingSchedule(Protocol):
    """Which noise levels to visit."""

    def sigmas(self, path: Path) -> np.ndarray:
        """Return the noise levels of n steps, f64[n+1], strictly decreasing.

        The first may be inf, where the path ends in pure noise; the last is 0 unless a field says otherwise. Raises
        UserError where schedule and path do not fit.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rho:
    """Noise levels whose rho-th roots are evenly spaced (EDM, arXiv:2206.00364, equation 5)."""

    steps: int = 18
    sigma_min: float | None = 0.002
    """Smallest level above 0; None: the path's own."""
    sigma_max: float | None = 80.0
    """First level; None: the path's own."""
    rho: float = 7.0
    to_zero: bool = True
    """Whether a last step leads from sigma_min to 0. It is of order 1 in any solver: to measure orders, end above 0."""

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)
        if self.rho <= 0:
            raise UserError(f"Rho.rho is above 0; got {self.rho}")

    def sigmas(self, path: Path) -> np.ndarray:
        low, high = _ends(self, path, self.sigma_min, self.sigma_max)
        # One point for one step to 0: the first level.
        ramp = np.linspace(0, 1, self.steps + (not self.to_zero))
        root = 1 / self.rho
        return _with_ends((high**root + ramp * (low**root - high**root)) ** self.rho, low, high, self.to_zero)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exponential:
    """Noise levels whose logarithms are evenly spaced."""

    steps: int = 18
    sigma_min: float | None = 0.002
    """Smallest level above 0; None: the path's own."""
    sigma_max: float | None = 80.0
    """First level; None: the path's own."""
    to_zero: bool = True
    """Whether a last step leads from sigma_min to 0."""

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)

    def sigmas(self, path: Path) -> np.ndarray:
        low, high = _ends(self, path, self.sigma_min, self.sigma_max)
        ramp = np.linspace(0, 1, self.steps + (not self.to_zero))
        return _with_ends(np.exp(math.log(high) + ramp * math.log(low / high)), low, high, self.to_zero)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leading:
    """Every k-th time of a table of betas from its clean end on, k = table / steps rounded down, as DDPM and DDIM do.

    It does not reach the table's last time: arXiv:2305.08891 (section 3.3) says why Trailing is better.
    """

    steps: int = 50
    offset: int = 0
    """Added to every time; 1 in Stable Diffusion."""

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)

    def sigmas(self, path: Path) -> np.ndarray:
        table = _table(self, path, self.steps)
        t = np.arange(self.steps)[::-1] * (table // self.steps) + self.offset
        if self.offset < 0 or t[0] >= table:
            raise UserError(f"Leading.offset = {self.offset} takes the times out of 0..{table - 1}: choose another")
        return np.append(ratio(path, t), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trailing:
    """Evenly spaced times of a table of betas that include its last one (arXiv:2305.08891, section 3.3)."""

    steps: int = 50

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)

    def sigmas(self, path: Path) -> np.ndarray:
        table = _table(self, path, self.steps)
        return np.append(ratio(path, _whole(table - np.arange(self.steps) * (table / self.steps)) - 1), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linspace:
    """Evenly spaced whole times of a table of betas from its last to its first."""

    steps: int = 50
    omit: int = 0
    """How many times at the clean end are left out; 1 for what DPM-Solver++ and UniPC usually visit."""

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)
        if self.omit < 0:
            raise UserError(f"Linspace.omit is 0 or more; got {self.omit}")

    def sigmas(self, path: Path) -> np.ndarray:
        table = _table(self, path, self.steps + self.omit)
        t = np.linspace(table - 1, 0, self.steps + self.omit)[: self.steps]
        return np.append(ratio(path, _whole(t)), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformTime:
    """Evenly spaced times over the whole span of a path, from its noisy end: inf where that is pure noise."""

    steps: int = 50
    shift: float = 1.0
    """Multiplies every ratio, for larger images (arXiv:2403.03206, equation 23)."""

    def __post_init__(self) -> None:
        _check_steps(self, self.steps)
        if self.shift <= 0:
            raise UserError(f"UniformTime.shift is above 0; got {self.shift}")

    def sigmas(self, path: Path) -> np.ndarray:
        clean, noisy = path.span()
        least, greatest = ratios(path)
        # Where the clean end has no noise it is the last level itself, else one more step leads from it to 0.
        t = np.linspace(noisy, clean, self.steps + (least == 0))[: self.steps]
        if self.shift != 1 and not (least == 0 and math.isinf(greatest)):
            raise UserError(
                f"UniformTime.shift = {self.shift} leads to levels that {type(path).__name__} does not have: it is for "
                f"paths from no noise to pure noise, such as Flow"
            )
        return np.append(self.shift * ratio(path, t), 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Noise levels written out: strictly decreasing, within the path's, the last 0 or above."""

    levels: tuple[float, ...]

    def sigmas(self, path: Path) -> np.ndarray:
        levels = decreasing(self.levels)
        _within(self, path, levels[0], levels[levels > 0][-1])
        return levels


def decreasing(levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return noise levels as f64[n+1]; raise UserError unless they decrease strictly and lie between 0 and inf."""
    sigmas = np.asarray(levels, np.float64)
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise UserError(f"noise levels are a list of at least 2 numbers; got one of shape {sigmas.shape}")
    wrong = np.flatnonzero(~(sigmas[1:] < sigmas[:-1]))
    if len(wrong) or not sigmas[-1] >= 0:
        cause = (
            f"{sigmas[wrong[0]]:.6g} is followed by {sigmas[wrong[0] + 1]:.6g}"
            if len(wrong)
            else f"the last is {sigmas[-1]}"
        )
        raise UserError(f"noise levels decrease strictly to 0 or above; here {cause}")
    return sigmas


def _check_steps(schedule: object, steps: int) -> None:
    if steps < 1:
        raise UserError(f"{type(schedule).__name__}.steps is 1 or more; got {steps}")


def _ends(schedule: SamplingSchedule, path: Path, low: float | None, high: float | None) -> tuple[float, float]:
    """Return the smallest level above 0 and the largest of a schedule, checked against the path."""
    name, (least, greatest) = type(schedule).__name__, ratios(path)
    if low is None and least == 0:
        raise UserError(f"{type(path).__name__} has no smallest level above 0: give {name}.sigma_min")
    if high is None and math.isinf(greatest):
        raise UserError(f"{type(path).__name__} ends in pure noise, where {name} cannot start: give {name}.sigma_max")
    low, high = least if low is None else low, greatest if high is None else high
    if not 0 < low < high < math.inf:
        raise UserError(f"{name} needs 0 < sigma_min < sigma_max < inf; got {low:.6g} and {high:.6g}")
    _within(schedule, path, high, low)
    return low, high


def _within(schedule: SamplingSchedule, path: Path, high: float, low: float) -> None:
    least, greatest = ratios(path)
    if low < least * (1 - 1e-6) or high > greatest * (1 + 1e-6):
        raise UserError(
            f"{type(schedule).__name__} visits levels {low:.6g} to {high:.6g}, but {type(path).__name__} has "
            f"{least:.6g} to {greatest:.6g}: choose levels within (sigma_min, sigma_max = None take the path's)"
        )


def _with_ends(levels: np.ndarray, low: float, high: float, to_zero: bool) -> np.ndarray:
    """Set the ends to exactly these numbers, without rounding errors, and add a last 0 where that is wanted."""
    levels[-1] = low
    levels[0] = high
    return np.append(levels, 0.0) if to_zero else levels


def _table(schedule: SamplingSchedule, path: Path, times: int) -> int:
    """Return the length of a path's table of betas; raise UserError where it has none or too few entries."""
    name = type(schedule).__name__
    if not isinstance(path, Discrete):
        raise UserError(
            f"{name} picks times from a table of betas, which {type(path).__name__} is not: use UniformTime or Rho"
        )
    length = round(path.span()[1]) + 1
    if times > length:
        raise UserError(f"{name} cannot pick {times} times from a table of {length}: take fewer steps")
    return length


def _whole(t: np.ndarray) -> np.ndarray:
    """Round to the nearest whole time; halves go up, as rounding them to even would take some times twice."""
    return np.floor(t + 0.5)
