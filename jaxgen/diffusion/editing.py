"""Pictures changed by a diffusion model: noised and denoised again, or followed up to the noise that they came from.

Strength says how much of a picture is noise where sampling starts: `strength` of noise to `1 - strength` of picture,
the flow's time. It is the noise level strength / (1 - strength), whatever path, schedule and solver there are.
"""

import dataclasses
import math

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.diffusion.denoiser import Denoise
from jaxgen.diffusion.flow import FlowHeun, FlowMidpoint
from jaxgen.diffusion.guidance import Conditioned, Unguided
from jaxgen.diffusion.guidance import guide as bind
from jaxgen.diffusion.path import Path
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Given
from jaxgen.diffusion.solvers import Call, Euler, Linear
from jaxgen.errors import UserError
from jaxgen.typing import Condition


def level(strength: float) -> float:
    """Return the noise level sigma of a strength in 0..1: 0 at 0, inf at 1. Raises UserError for others."""
    if not 0 <= strength <= 1:
        raise UserError(f"strength is {strength:g}; it lies in 0..1: 0 is the picture itself, 1 nothing but noise")
    return math.inf if strength == 1 else strength / (1 - strength)


def truncated(sigmas: np.ndarray, sigma: float) -> np.ndarray:
    """Return the noise levels f64[k+1] of a schedule f64[n+1] from `sigma` on: it, and those of the schedule below it.

    At or above the first level it is the whole schedule; at or below the last one, that level alone.
    """
    if sigma >= sigmas[0]:
        return sigmas
    below = sigmas[sigmas < sigma * (1 - 1e-6)]  # no step of a rounding error's length
    return np.concatenate([[sigma], below]) if len(below) else sigmas[-1:]


def edit(
    sampling: Sampling,
    net: Conditioned,
    path: Path,
    x0: Float[Array, "b *s"],
    noise: Float[Array, "b *s"],
    keys: Key[Array, " b"],
    *,
    sigma: float,
    condition: Condition,
    null: Condition | None = None,
    guide: Conditioned | None = None,
) -> Float[Array, "b *s"]:
    """Add standard normal noise to images up to level `sigma`, and denoise them from there (SDEdit, arXiv:2108.01073).

    From the schedule's first level on nothing is left of the images: these are its plain samples. At 0 they are
    returned as they are. Other arguments are those of `Sampling.run`.
    """
    levels = truncated(sampling.schedule.sigmas(path), sigma)
    if len(levels) == 1:
        return x0
    if sigma < sampling.schedule.sigmas(path)[0]:
        noise = noise + x0 / levels[0]  # which `start` multiplies by the level
        sampling = dataclasses.replace(sampling, schedule=Given(levels=tuple(levels.tolist())))
    return sampling.run(net, path, noise, keys, condition=condition, null=null, guide=guide)[0]


Upward = Euler | FlowHeun | FlowMidpoint  # solvers whose formulas also hold for levels that rise


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rising(Linear):
    """A solver on levels that rise; where the first is 0, no net is called there."""

    solver: Upward

    @property
    def order(self) -> int:
        return self.solver.order

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        if sigmas[0] > 0:
            return self.solver.calls(sigmas)
        rest = self.solver.calls(sigmas[1:])
        kept = len(rest[0].slots)
        x, *_, x0 = np.eye(kept + 1)
        # Heun's step in the flow's time t: at 0 the velocity is -x, so that the guess for t is x itself.
        t = sigmas[1] / (1 + sigmas[1])
        first = ((1.5 - t) * x - 0.5 * x0) / (1 - t)
        return [Call(level=sigmas[1], slots=(first, *[0 * x] * (kept - 1))), *rest]


def invert(
    denoise: Denoise, x0: Float[Array, "b *s"], sigmas: np.ndarray, solver: Upward | None = None
) -> Float[Array, "b *s"]:
    """Return the noise, near standard normal, from which the probability-flow ODE leads to these images.

    The ODE is followed up the levels f64[n+1] of a sampling schedule, from its last to its first; by `FlowHeun` where
    no solver is named. The error falls as steps^-order. Guidance would make it diverge: give a denoiser without.

    Raises UserError for a schedule of less than two steps.
    """
    if len(sigmas) < 3:
        raise UserError("inversion needs a sampling schedule of 2 steps or more; give it more steps")
    rising = _Rising(solver=FlowHeun() if solver is None else solver)
    keys = jax.random.split(jax.random.key(0), len(x0))  # of nothing: the ODE draws no noise
    unguided = bind(Unguided(), lambda x, sigma, condition: denoise(x, sigma), {}, keys)
    x, _ = rising.solve(unguided, sigmas[::-1], x0, keys, trace=False)
    return x if math.isinf(sigmas[0]) else x / float(sigmas[0])
