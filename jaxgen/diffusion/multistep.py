"""Multistep solvers: one call of the net a step, and its estimates at earlier noise levels.

With lambda = -ln sigma and h = lambda_then - lambda_now the ODE's solution is

    x_then = e^-h x_now + integral over lambda from lambda_now to lambda_then of e^(lambda - lambda_then) D

(arXiv:2211.01095, equation 9, in coordinates where alpha is 1). A solver of this family approximates D between the two
levels by a polynomial in lambda through its values at levels where the net was called.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxgen.diffusion.solvers import Call, Linear, finite, toward
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dpm2M(Linear):
    """DPM-Solver++(2M), order 2, one call a step (arXiv:2211.01095, algorithm 2).

    A single first step of order 1 does not lower the order. It may start at pure noise; the second step then has order
    1 too, as the first one's h is infinite.
    """

    @property
    def order(self) -> int:
        return 2

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        return _second_order(sigmas, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dpm2MSde(Linear):
    """DPM-Solver++(2M) of the reverse SDE (arXiv:2211.01095, section 5), the midpoint form; Dpm2M at eta = 0.

    On Gaussian data the variance of its samples is of order 2 in the steps.
    """

    eta: float = 1.0
    """How much noise is exchanged; 1 for the reverse of the forward SDE."""

    def __post_init__(self) -> None:
        if self.eta < 0:
            raise UserError(f"Dpm2MSde.eta is 0 or more; got {self.eta}")

    @property
    def order(self) -> int:
        return 2

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        return _second_order(sigmas, self.eta)


def _second_order(sigmas: np.ndarray, eta: float) -> list[Call]:
    x, last, x0 = np.eye(3)
    calls = []
    for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
        kept = (then / now) ** eta  # 0 at pure noise, but 1 for the ODE
        ahead = x0 if i == 0 or then == 0 else _midway(x0, last, sigmas[i - 1], now, then)
        calls.append(
            Call(level=now, slots=(toward(x, ahead, now, then * kept), x0), after=then * math.sqrt(1 - kept**2))
        )
    return calls


def _midway(x0: np.ndarray, last: np.ndarray, before: float, now: float, then: float) -> np.ndarray:
    """Estimate D halfway (in lambda) from `now` to `then`, on the line through its values at `before` and `now`."""
    return x0 + (x0 - last) * math.log(now / then) / (2 * math.log(before / now))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dpm3M(Linear):
    """The third-order multistep method of exponential Adams-Bashforth type, order 3, one call a step and one more.

    It is what DPM-Solver++(3M) is meant to be. The usual implementations of that are of order 2 only, as they take the
    second divided difference for the second derivative, which is twice that; here the polynomial is integrated exactly.
    The first step is DPM-Solver++(2S), of order 2, with a middle call, whose value serves as history.
    """

    @property
    def order(self) -> int:
        return 3

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        finite(sigmas, self, "use Dpm2M, or a schedule with a finite first level")
        x, d1, d2, x0 = np.eye(4)
        calls, seen = [], []
        for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
            if then == 0:
                calls.append(Call(level=now, slots=(x0, d1, d2)))
            elif i == 0:
                # The third array keeps the step's start until the middle call is made.
                middle = math.sqrt(now * then)
                calls.append(Call(level=now, slots=(toward(x, x0, now, middle), x0, x), ends=False))
                calls.append(Call(level=middle, slots=(toward(d2, x0, now, then), x0, d1)))
                seen = [middle, now]
            else:
                moved = _through((x0, d1, d2), (now, *seen), x, now, then)
                calls.append(Call(level=now, slots=(moved, x0, d1)))
                seen = [now, seen[0]]
        return calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniPc(Linear):
    """UniPC, one call a step (arXiv:2302.04867, algorithm 1, multistep, x0 prediction, B(h) = e^h - 1).

    The net's output after a step corrects that step before the next one, without a further call. So the error falls at
    least as steps^-order, and up to steps^-(order + 1). The first steps have lower orders.
    """

    order: Literal[2, 3] = 2

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        finite(sigmas, self, "use Dpm2M, or a schedule with a finite first level")
        x, base, *past, x0 = np.eye(3 + self.order)  # past: the net's earlier estimates, latest first
        calls = []
        for i, (now, then) in enumerate(itertools.pairwise(sigmas)):
            seen = sigmas[max(i - self.order, 0) : i][::-1]  # the levels of `past`
            # B(h) matters only where there is one difference: its weight is half of B(h), and no system is solved.
            if i == 0:
                corrected = x
            elif i == 1:
                corrected = toward(base, (x0 + past[0]) / 2, seen[0], now)
            else:
                corrected = _through((x0, *past[: len(seen)]), (now, *seen), base, seen[0], now)
            order = min(self.order, i + 1)
            if then == 0 or order == 1:
                moved = toward(corrected, x0, now, then)
            elif order == 2:
                moved = toward(corrected, _midway(x0, past[0], seen[0], now, then), now, then)
            else:
                moved = _through((x0, *past[:2]), (now, *seen[:2]), corrected, now, then)
            calls.append(Call(level=now, slots=(moved, corrected, x0, *past[:-1])))
        return calls


def _through(
    values: Sequence[np.ndarray], levels: Sequence[float], x: np.ndarray, now: float, then: float
) -> np.ndarray:
    """Move x by the formula at the top of this file, D being the polynomial in lambda through `values` at `levels`."""
    nodes = -np.log(np.asarray(levels))
    first, last = -math.log(now), -math.log(then)
    # By quadrature, exact to float64: the closed forms lose all digits where h is small.
    spots, measure = np.polynomial.legendre.leggauss(32)
    at = first + (last - first) * (spots + 1) / 2
    density = np.exp(at - last) * measure * (last - first) / 2
    moved = then / now * x
    for j, value in enumerate(values):
        others = np.delete(nodes, j)
        moved = moved + value * (density * np.prod((at[:, None] - others) / (nodes[j] - others), axis=1)).sum()
    return moved
