"""Paths from data to noise, x_t = alpha(t) x0 + sigma(t) eps: what a noise level means, and nothing about nets.

Once x_t is divided by alpha, two paths differ only in the ratio sigma / alpha as a function of t; samplers use that
ratio as their only coordinate. Each formula keeps its relative precision in float32 at both ends of the path, where
alpha or sigma is small: none computes one from the other by sqrt(1 - x²).
"""

import abc
import dataclasses
import functools
import math
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.errors import UserError

Level = Float[Array, "*s"]


@runtime_checkable
class Path(Protocol):
    """alpha and sigma over t; the ratio sigma / alpha rises with t."""

    def span(self) -> tuple[float, float]:
        """Return t of the least and of the most noise."""
        ...

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Return what x0 is multiplied by."""
        ...

    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Return what eps is multiplied by."""
        ...

    def time(self, ratio: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """Return t of a ratio sigma / alpha, which may be inf where the path ends in pure noise."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edm:
    """Variance exploding, x_t = x0 + t eps (EDM, arXiv:2206.00364, table 1)."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise UserError(f"Edm needs 0 < sigma_min < sigma_max < inf; got {self.sigma_min} and {self.sigma_max}")

    def span(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def alpha(self, t: Level) -> Level:
        return jnp.ones_like(t)

    def sigma(self, t: Level) -> Level:
        return t

    def time(self, ratio: Level) -> Level:
        return ratio


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flow:
    """The straight line from data at t = 0 to noise at t = 1 (rectified flow, arXiv:2209.03003)."""

    def span(self) -> tuple[float, float]:
        return 0.0, 1.0

    def alpha(self, t: Level) -> Level:
        return 1 - t

    def sigma(self, t: Level) -> Level:
        return t

    def time(self, ratio: Level) -> Level:
        # Two forms of one formula: neither end divides by 0, nor inf by inf.
        little, much = jnp.where(ratio < 1, ratio, 1), jnp.where(ratio < 1, 1, ratio)
        return jnp.where(ratio < 1, little / (1 + little), 1 / (1 + 1 / much))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """A quarter of a circle, alpha = cos(pi t / 2) and sigma = sin(pi t / 2), for t from 0 to 1 (arXiv:2202.00512)."""

    def span(self) -> tuple[float, float]:
        return 0.0, 1.0

    def alpha(self, t: Level) -> Level:
        return jnp.sin(jnp.pi / 2 * (1 - t))  # 1 - t is exact from t = 1/2 on: a cosine would be off by 1e-7 at the end

    def sigma(self, t: Level) -> Level:
        return jnp.sin(jnp.pi / 2 * t)

    def time(self, ratio: Level) -> Level:
        return jnp.arctan(ratio) / (jnp.pi / 2)


class Discrete(abc.ABC):
    """A table of beta over whole t from 0 to steps - 1, variance preserving: alpha² + sigma² = 1 (arXiv:2006.11239).

    Between two entries the angle atan2(sigma, alpha) is linear in t; at whole t it is the table's. A ratio beyond the
    table's ends has the time of the nearer end.
    """

    @abc.abstractmethod
    def alphas_cumprod(self) -> np.ndarray:
        """Return alpha² at each whole t, f64[steps], falling."""

    def span(self) -> tuple[float, float]:
        return 0.0, len(self.alphas_cumprod()) - 1.0

    def alpha(self, t: Level) -> Level:
        return jnp.sin(_between(_angles(self)[1], t))

    def sigma(self, t: Level) -> Level:
        return jnp.sin(_between(_angles(self)[0], t))

    def time(self, ratio: Level) -> Level:
        rising, falling = (jnp.asarray(angles, ratio.dtype) for angles in _angles(self))
        t = jnp.arange(len(rising), dtype=ratio.dtype)
        little = jnp.interp(jnp.arctan(ratio), rising, t)
        much = jnp.interp(jnp.arctan2(jnp.ones_like(ratio), ratio), falling[::-1], t[::-1])
        return jnp.where(ratio < 1, little, much)


@functools.cache
def _angles(path: Discrete) -> tuple[np.ndarray, np.ndarray]:
    """Return atan2(sigma, alpha) and atan2(alpha, sigma) at whole t: each is precise where the other nears pi / 2."""
    signal = path.alphas_cumprod()
    alpha, sigma = np.sqrt(signal), np.sqrt(1 - signal)
    return np.arctan2(sigma, alpha), np.arctan2(alpha, sigma)


def _between(table: np.ndarray, t: Level) -> Level:
    entries = jnp.asarray(table, t.dtype)
    below = jnp.clip(jnp.floor(t), 0, len(table) - 2)
    share = jnp.clip(t - below, 0, 1)
    index = below.astype(jnp.int32)
    return entries[index] * (1 - share) + entries[index + 1] * share


def _check_betas(start: float, end: float, steps: int) -> None:
    if steps < 2 or not 0 < start <= end < 1:
        raise UserError(f"betas need 0 < start <= end < 1 and at least 2 steps; got {start}, {end} and {steps} steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearBetas(Discrete):
    """Beta rises linearly (DDPM, arXiv:2006.11239, section 4)."""

    start: float = 1e-4
    end: float = 0.02
    steps: int = 1000

    def __post_init__(self) -> None:
        _check_betas(self.start, self.end, self.steps)

    def alphas_cumprod(self) -> np.ndarray:
        return np.cumprod(1 - np.linspace(self.start, self.end, self.steps))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScaledLinearBetas(Discrete):
    """The root of beta rises linearly (latent diffusion, arXiv:2112.10752, and all of Stable Diffusion 1 and 2)."""

    start: float = 0.00085
    end: float = 0.012
    steps: int = 1000

    def __post_init__(self) -> None:
        _check_betas(self.start, self.end, self.steps)

    def alphas_cumprod(self) -> np.ndarray:
        return np.cumprod(1 - np.linspace(math.sqrt(self.start), math.sqrt(self.end), self.steps) ** 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineBetas(Discrete):
    """Beta of which alpha² is about cos²(pi/2 (t + 0.008) / 1.008) (arXiv:2102.09672, equation 17)."""

    steps: int = 1000
    cap: float = 0.999
    """Largest beta: without it the last alpha would be 0."""

    def __post_init__(self) -> None:
        _check_betas(self.cap, self.cap, self.steps)

    def alphas_cumprod(self) -> np.ndarray:
        signal = np.cos(np.pi / 2 * (np.arange(self.steps + 1) / self.steps + 0.008) / 1.008) ** 2
        return np.cumprod(1 - np.minimum(1 - signal[1:] / signal[:-1], self.cap))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroTerminal(Discrete):
    """A table shifted and scaled so that it ends in pure noise and keeps its start (arXiv:2305.08891, algorithm 1)."""

    path: Discrete = ScaledLinearBetas()

    def alphas_cumprod(self) -> np.ndarray:
        alpha = np.sqrt(self.path.alphas_cumprod())
        return ((alpha - alpha[-1]) * (alpha[0] / (alpha[0] - alpha[-1]))) ** 2


def at(path: Path, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return alpha and sigma at t, f64[n] each, on the host and also while a program is traced."""
    # An explicit transfer, also where the training loop forbids implicit ones.
    with jax.ensure_compile_time_eval(), jax.enable_x64(True), jax.transfer_guard("allow"):
        times = jnp.asarray(t, jnp.float64)
        return np.asarray(path.alpha(times)), np.asarray(path.sigma(times))


def ratio(path: Path, t: np.ndarray) -> np.ndarray:
    """Return sigma / alpha at t, f64[n], inf where alpha is 0; computed on the host, as by `at`."""
    alpha, sigma = at(path, t)
    with np.errstate(divide="ignore"):
        return sigma / alpha


def ratios(path: Path) -> tuple[float, float]:
    """Return the smallest and the largest sigma / alpha of a path; the largest is inf where it ends in pure noise."""
    least, greatest = ratio(path, np.asarray(path.span())).tolist()
    return least, greatest
