"""Solvers that step in the flow's time t = sigma / (1 + sigma), in which pure noise is an ordinary time, t = 1.

There z = (1 - t) x0 + t eps moves with the velocity (z - D) / t, and t = 1 is where sigma is infinite.
"""

import dataclasses
import itertools
import math

import numpy as np

from jaxgen.diffusion.solvers import Call, Linear, toward


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMidpoint(Linear):
    """The midpoint method, order 2: 2 calls a step, 1 for a step to 0. It may start at pure noise."""

    @property
    def order(self) -> int:
        return 2

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        x, base, x0 = np.eye(3)
        calls = []
        for now, then in itertools.pairwise(sigmas):
            if then == 0:
                calls.append(Call(level=now, slots=(toward(x, x0, now, then), base)))
                break
            t, end = _time(now), _time(then)
            middle = (t + end) / 2
            level = middle / (1 - middle)
            calls.append(Call(level=now, slots=(toward(x, x0, now, level), _signal(now) * x), ends=False))
            z = base + (end - t) * (_signal(level) * x - x0) / middle
            calls.append(Call(level=level, slots=(z / _signal(then), base)))
        return calls


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowHeun(Linear):
    """Heun's method, order 2: 2 calls a step, 1 for a step to 0. It may start at pure noise."""

    @property
    def order(self) -> int:
        return 2

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        x, base, first, x0 = np.eye(4)
        calls = []
        for now, then in itertools.pairwise(sigmas):
            guess = toward(x, x0, now, then)
            if then == 0:
                calls.append(Call(level=now, slots=(guess, base, first)))
                break
            t, end = _time(now), _time(then)
            velocity = (_signal(now) * x - x0) / t
            calls.append(Call(level=now, slots=(guess, _signal(now) * x, velocity), ends=False))
            z = base + (end - t) * (first + (_signal(then) * x - x0) / end) / 2
            calls.append(Call(level=then, slots=(z / _signal(then), base, first)))
        return calls


def _time(sigma: float) -> float:
    return 1.0 if math.isinf(sigma) else sigma / (1 + sigma)


def _signal(sigma: float) -> float:
    """z / x: what the flow multiplies x0 by, but 1 at pure noise, where x is the noise and so is z."""
    return 1.0 if math.isinf(sigma) else 1 / (1 + sigma)
