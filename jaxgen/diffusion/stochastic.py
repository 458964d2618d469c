"""Solvers of the reverse SDE: each step removes more noise than the level falls, and adds fresh noise."""

import dataclasses
import itertools
import math

import numpy as np

from jaxgen.diffusion.solvers import Call, Linear, finite, toward
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ddim(Linear):
    """DDIM (arXiv:2010.02502, equation 12), order 1: the ODE at eta = 0, as noisy as DDPM at eta = 1."""

    eta: float = 0.0
    """Share of the posterior's standard deviation that is fresh noise, from 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"Ddim.eta is a share from 0 to 1; got {self.eta}")

    @property
    def order(self) -> int:
        return 1

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        x, x0 = np.eye(2)
        calls = []
        for now, then in itertools.pairwise(sigmas):
            fresh = self.eta * math.sqrt(_posterior(now, then))
            kept = math.sqrt(then**2 - fresh**2)
            calls.append(Call(level=now, slots=(toward(x, x0, now, kept),), after=fresh))
        return calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ancestral(Linear):
    """DDPM's sampler (arXiv:2006.11239, algorithm 2), order 1: draw from the posterior q(x_then | x_now, x0 = D).

    Of the paper's two variances the posterior's own is exact for data that are one point, and beta for data of unit
    variance; between them the logarithm is interpolated (arXiv:2102.09672, equation 15).
    """

    spread: float = 0.0
    """0: the posterior's variance ("fixed small"); 1: beta of a variance-preserving path ("fixed large")."""

    def __post_init__(self) -> None:
        if not 0 <= self.spread <= 1:
            raise UserError(f"Ancestral.spread is a share from 0 to 1; got {self.spread}")

    @property
    def order(self) -> int:
        return 1

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        x, x0 = np.eye(2)
        calls = []
        for now, then in itertools.pairwise(sigmas):
            # beta / alpha_then² = (now² - then²) alpha_now² / alpha_then², where alpha² = 1 / (1 + sigma²).
            share = 1.0 if math.isinf(now) else (now**2 - then**2) / (1 + now**2)
            beta = share * (1 + then**2)
            # The last step adds no noise at any spread.
            variance = 0.0 if then == 0 else _posterior(now, then) ** (1 - self.spread) * beta**self.spread
            # 0 where now is inf: then nothing of x is kept.
            calls.append(Call(level=now, slots=(toward(x, x0, now, then**2 / now),), after=math.sqrt(variance)))
        return calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerMaruyama(Linear):
    """Euler-Maruyama steps in sigma of dx = (1 + c) (x - D) / sigma dsigma + sqrt(2 c sigma) dw, order 1.

    For every amount c it has the ODE's marginals (arXiv:2206.00364, equation 6 with beta = c / sigma); the last step,
    to 0, returns D.
    """

    amount: float = 1.0
    """How much noise is exchanged: 0 for the ODE (then this is Euler), 1 for the reverse of the forward SDE."""

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise UserError(f"EulerMaruyama.amount is 0 or more; got {self.amount}")

    @property
    def order(self) -> int:
        return 1

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        finite(sigmas, self, "use Ddim(eta=1.0), or a schedule with a finite first level")
        x, x0 = np.eye(2)
        calls = []
        for now, then in itertools.pairwise(sigmas):
            moved = x + (1 + self.amount) * (then - now) / now * (x - x0) if then else x0
            fresh = math.sqrt(2 * self.amount * now * (now - then)) if then else 0.0
            calls.append(Call(level=now, slots=(moved,), after=fresh))
        return calls


def _posterior(now: float, then: float) -> float:
    """Return the variance of x at noise level `then`, given x at `now` and x0 (arXiv:2006.11239, equation 7)."""
    return then**2 * (1 - (then / now) ** 2)
