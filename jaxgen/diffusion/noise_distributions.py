"""Which noise levels training sees: distributions over t, written as inverse distribution functions of u in (0, 1)."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.diffusion.path import Path, ratio
from jaxgen.errors import UserError

# A uniform float32 is a whole multiple of 2^-23, 0 included, where the inverse of the normal distribution is infinite.
# Half a step higher it is never 0 or 1, and its distribution is symmetric.
HALF_STEP = 2.0**-24
STEEPEST = 1e9  # bound of -dλ/du; it is reached only at an end, where the slope would be infinite

Rows = Float[Array, " b"]


@runtime_checkable
class NoiseDistribution(Protocol):
    """A distribution of the time t on a path."""

    def at(self, u: Float[Array, " b"], path: Path) -> Float[Array, " b"]:
        """Return the t below which the share u of the draws lies."""
        ...

    def draw(self, key: PRNGKeyArray, n: int, path: Path) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        """Draw n values of t; return (t, u), where t = at(u)."""
        ...


def _check_positive(name: str, value: float) -> None:
    if value <= 0:
        raise UserError(f"{name} is above 0; got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uniform:
    """t uniform over the path's span (arXiv:2006.11239), then noisier by `shift`."""

    shift: float = 1.0
    """Factor of the ratio sigma / alpha: about 3 for images of 1024² (arXiv:2403.03206, equation 23)."""

    def __post_init__(self) -> None:
        _check_positive("Uniform.shift", self.shift)

    def at(self, u: Rows, path: Path) -> Rows:
        return _shifted(_within(u, path), self.shift, path)

    def draw(self, key: PRNGKeyArray, n: int, path: Path) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return _independent(self, key, n, path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogNormal:
    """The logarithm of the ratio sigma / alpha is normal (EDM, arXiv:2206.00364, table 1)."""

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _check_positive("LogNormal.std", self.std)

    def at(self, u: Rows, path: Path) -> Rows:
        return path.time(jnp.exp(self.mean + self.std * ndtri(u)))

    def draw(self, key: PRNGKeyArray, n: int, path: Path) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return _independent(self, key, n, path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitNormal:
    """t's place in the path's span is the sigmoid of a normal (arXiv:2403.03206, section 3.1), then shifted."""

    mean: float = 0.0
    """Above 0 the draws lean to noise."""
    std: float = 1.0
    shift: float = 1.0
    """Factor of the ratio sigma / alpha (arXiv:2403.03206, equation 23)."""

    def __post_init__(self) -> None:
        _check_positive("LogitNormal.std", self.std)
        _check_positive("LogitNormal.shift", self.shift)

    def at(self, u: Rows, path: Path) -> Rows:
        return _shifted(_within(jax.nn.sigmoid(self.mean + self.std * ndtri(u)), path), self.shift, path)

    def draw(self, key: PRNGKeyArray, n: int, path: Path) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        return _independent(self, key, n, path)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowDiscrepancy:
    """The draws of a batch spread evenly: one in each of n equal shares (VDM, arXiv:2107.00630).

    Each draw by itself has the given distribution; the mean over a batch has less variance.
    """

    distribution: NoiseDistribution = Uniform()

    def at(self, u: Rows, path: Path) -> Rows:
        return self.distribution.at(u, path)

    def draw(self, key: PRNGKeyArray, n: int, path: Path) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
        u = (jax.random.uniform(key) + jnp.arange(n, dtype=jnp.float32) / n) % 1.0
        u = jnp.clip(u, HALF_STEP, 1 - HALF_STEP)
        return self.at(u, path), u


def log_snr_slope(distribution: NoiseDistribution, u: Float[Array, " b"], path: Path) -> Float[Array, " b"]:
    """Return -dλ/du, where λ = 2 ln(alpha / sigma) is the log of the signal-to-noise ratio: 1 / density of λ.

    At an end where it is infinite the result is 1e9, so that a weight that falls to 0 there stays 0.
    """

    def log_snr(u: Rows) -> Rows:
        t = distribution.at(u, path)
        return 2 * (jnp.log(path.alpha(t)) - jnp.log(path.sigma(t)))

    _, slope = jax.jvp(log_snr, (u,), (jnp.ones_like(u),))
    return jnp.nan_to_num(jnp.minimum(-slope, STEEPEST), nan=STEEPEST)


def middles(distribution: NoiseDistribution, path: Path, n: int) -> list[float]:
    """Return the ratios sigma / alpha at the middles of n equal shares of the draws; on the host, also in a trace."""
    with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
        t = distribution.at((jnp.arange(n) + 0.5) / n, path)
    return ratio(path, np.asarray(t)).tolist()


def _independent(distribution: NoiseDistribution, key: PRNGKeyArray, n: int, path: Path) -> tuple[Rows, Rows]:
    u = jax.random.uniform(key, (n,)) + HALF_STEP
    return distribution.at(u, path), u


def _within(share: Rows, path: Path) -> Rows:
    first, last = path.span()
    return first + (last - first) * share


def _shifted(t: Rows, shift: float, path: Path) -> Rows:
    return t if shift == 1 else path.time(shift * path.sigma(t) / path.alpha(t))
