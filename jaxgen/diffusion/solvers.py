"""Solvers of the reverse process as tables of numbers, the one loop that runs them, and the single-step solvers.

All work on x = x0 + sigma eps, where sigma is the ratio of noise to signal, so one solver serves every path. There the
probability-flow ODE is dx/dsigma = (x - D(x, sigma)) / sigma (arXiv:2206.00364, equation 1), D being the denoiser.

A step of any of them is linear in x, in the net's present and earlier outputs, and in fresh noise. So a solver only
writes down, from the host's float64 noise levels, at which levels the net is called and how the few arrays that it
keeps are mixed after each call. `sample` scans over these calls: the net is compiled once for any solver, the number of
its calls is known before compilation, no logarithm of 0 and no arithmetic with inf is left for the device, and the
carry is the only state.
"""

import abc
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, overload, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxgen.diffusion.denoiser import Denoise
from jaxgen.diffusion.sampling_schedules import decreasing
from jaxgen.errors import UserError
from jaxgen.typing import Tree


class Trajectory(NamedTuple):
    """The steps of a sampler on a schedule of n + 1 noise levels."""

    x: Float[Array, "k b *s"]  # k = n + 1: the state at every level, the first included
    x0: Float[Array, "n b *s"]  # the net's last estimate of the image in each step


@runtime_checkable
class StatefulDenoise(Protocol):
    """A denoiser with a memory from call to call. As a pytree its leaves are rows, one for each sample."""

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        """Return the memory before the first call: rows too, () for nothing."""
        ...

    def step(self, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree) -> tuple[Float[Array, "b *s"], Tree]:
        """Return the estimate of x0 and the new memory."""
        ...


class Solver(abc.ABC):
    """A way to follow the reverse process down a schedule of noise levels."""

    @property
    @abc.abstractmethod
    def order(self) -> int:
        """Return p where the error falls as steps^-p: of x itself for an ODE, of its distribution for an SDE."""

    @abc.abstractmethod
    def levels(self, sigmas: np.ndarray) -> np.ndarray | None:
        """Return the noise levels of all calls of the net, f64[calls]; None where they depend on the samples.

        Raises UserError where it cannot follow this schedule.
        """

    @abc.abstractmethod
    def solve(
        self, denoise: StatefulDenoise, sigmas: np.ndarray, x: Float[Array, "b *s"], keys: Key[Array, " b"], trace: bool
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        """Follow the schedule; see `sample`."""


def start(noise: Float[Array, "b *s"], sigmas: np.ndarray) -> Float[Array, "b *s"]:
    """Scale noise of unit variance to the first noise level; at inf x is the noise itself."""
    return noise if math.isinf(sigmas[0]) else noise * float(sigmas[0])


@overload
def sample(
    solver: Solver, denoise: Denoise | StatefulDenoise, sigmas: np.ndarray, x: Array, keys: Array
) -> Float[Array, "b *s"]: ...
@overload
def sample(
    solver: Solver,
    denoise: Denoise | StatefulDenoise,
    sigmas: np.ndarray,
    x: Array,
    keys: Array,
    *,
    trace: Literal[True],
) -> tuple[Float[Array, "b *s"], Trajectory]: ...
def sample(
    solver: Solver,
    denoise: Denoise | StatefulDenoise,
    sigmas: np.ndarray,
    x: Float[Array, "b *s"],
    keys: Key[Array, " b"],
    *,
    trace: bool = False,
) -> Any:
    """Take x at noise level sigmas[0] (see `start`) down to sigmas[-1]; with `trace` return the trajectory too.

    `sigmas` f64[n+1] is strictly decreasing; its first may be inf, its last may be 0, where the result is exactly the
    last denoised image: the net is never called at 0. x and the result are f32 (or f64) whatever type the net computes
    in. The noise of sample i in call k is normal(fold_in(keys[i], k)): a sample depends on its own key only. A pure
    function.

    Raises UserError where sigmas are no schedule, or one that the solver cannot follow.
    """
    sigmas = decreasing(sigmas)
    solver.levels(sigmas)  # refuses before anything is traced
    net = denoise if isinstance(denoise, StatefulDenoise) else _Stateless(denoise=denoise)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    end, steps = solver.solve(net, sigmas, x, keys, trace)
    return (end, steps) if trace else end


@struct.dataclass
class _Stateless:
    """A plain denoiser as a `StatefulDenoise` with an empty memory."""

    denoise: Denoise = struct.field(pytree_node=False)

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return ()

    def step(self, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree) -> tuple[Float[Array, "b *s"], Tree]:
        return self.denoise(x, sigma), memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One call of the net and what follows from it.

    Of the arrays that a solver keeps, the first is x, which the net sees. After the call each becomes a weighted sum of
    all of them and, last, of the net's estimate x0: rows of coefficients, written as sums of the rows of `np.eye`.
    """

    level: float
    slots: tuple[np.ndarray, ...]
    ends: bool = True
    """Whether a step of the schedule ends here, with x at its next noise level."""
    before: float = 0.0
    """Standard deviation of the noise added to x before the call."""
    after: float = 0.0
    """The same, after it. A solver uses one of the two."""


class Linear(Solver):
    """A solver that is a table of calls."""

    @abc.abstractmethod
    def calls(self, sigmas: np.ndarray) -> list[Call]:
        """Write down the calls for these noise levels."""

    def levels(self, sigmas: np.ndarray) -> np.ndarray | None:
        return np.asarray([call.level for call in self.calls(sigmas)])

    def solve(
        self, denoise: StatefulDenoise, sigmas: np.ndarray, x: Float[Array, "b *s"], keys: Key[Array, " b"], trace: bool
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        calls = self.calls(sigmas)
        mix = np.asarray([call.slots for call in calls])
        used = (mix != 0).any(0)  # coefficients that are 0 in every call cost nothing
        before, after = (np.asarray([getattr(call, name) for call in calls]) for name in ("before", "after"))

        def call(carry: Tree, row: Tree) -> tuple[Tree, Tree]:
            (x, *kept), memory = carry
            k, level, weights, noise_before, noise_after = row
            fresh = _noise(keys, k, x) if before.any() or after.any() else x
            x = x + noise_before * fresh if before.any() else x
            x0, memory = denoise.step(x, level, memory)
            x0 = x0.astype(x.dtype)
            mixed = [_mixed(weights[i], used[i], (x, *kept, x0)) for i in range(len(used))]
            if after.any():
                mixed[0] = mixed[0] + noise_after * fresh
            return (tuple(mixed), memory), (mixed[0], x0) if trace else None

        slots = (x, *[jnp.zeros_like(x)] * (mix.shape[1] - 1))
        rows = tuple(jnp.asarray(a, x.dtype) for a in ([c.level for c in calls], mix, before, after))
        (slots, _), seen = jax.lax.scan(call, (slots, denoise.memory(x)), (jnp.arange(len(calls)), *rows))
        if not trace:
            return slots[0], None
        ends = np.flatnonzero([call.ends for call in calls])
        return slots[0], Trajectory(x=jnp.concatenate([x[None], seen[0][ends]]), x0=seen[1][ends])


def _noise(keys: Key[Array, " b"], k: Int[Array, ""], x: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, k), x.shape[1:], x.dtype))(keys)


def _mixed(weights: Float[Array, " n"], used: np.ndarray, terms: Sequence[Float[Array, "b *s"]]) -> Array:
    # Sums of products and no dot: an accelerator may round the factors of a dot to fewer bits.
    parts = [weights[j] * term for j, term in enumerate(terms) if used[j]]
    return sum(parts[1:], parts[0]) if parts else jnp.zeros_like(terms[0])


def toward(x: np.ndarray, x0: np.ndarray, now: float, then: float) -> np.ndarray:
    """Move x from noise level `now` to `then` on the ray through x0: the ODE's exact solution while D stays x0.

    One formula has the names Euler in sigma, Euler in the flow's time, DDIM (arXiv:2010.02502, equation 12 with
    sigma 0) and DPM-Solver++ of order 1. It also leads up, to pure noise at inf.
    """
    if math.isinf(then):
        return (x - x0) / now
    return x0 + then * x if math.isinf(now) else x0 + then / now * (x - x0)


def finite(sigmas: np.ndarray, solver: Any, fix: str) -> None:
    """Raise UserError where a schedule starts at pure noise and the solver cannot."""
    if math.isinf(sigmas[0]):
        raise UserError(f"{type(solver).__name__} cannot start at an infinite noise level: {fix}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Euler(Linear):
    """Euler's method, order 1, one call a step: also the Euler of flows and DDIM without noise (see `toward`)."""

    @property
    def order(self) -> int:
        return 1

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        x, x0 = np.eye(2)
        return [Call(level=now, slots=(toward(x, x0, now, then),)) for now, then in itertools.pairwise(sigmas)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heun(Linear):
    """EDM's sampler, order 2 without churn: 2 calls a step, 1 for a step to 0 (arXiv:2206.00364, algorithm 2)."""

    churn: float = 0.0
    """Amount of fresh noise over all steps, S_churn; 0 for the ODE."""
    churn_min: float = 0.0
    """Smallest noise level at which noise is added, S_tmin."""
    churn_max: float = math.inf
    """Largest, S_tmax."""
    noise: float = 1.0
    """Standard deviation of that noise, S_noise."""

    @property
    def order(self) -> int:
        return 2

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        finite(sigmas, self, "use FlowHeun, which steps in time, or a schedule with a finite first level")
        x, base, first, x0 = np.eye(4)
        calls = []
        for now, then in itertools.pairwise(sigmas):
            churned = self.churn_min <= now <= self.churn_max
            high = now * (1 + (min(self.churn / (len(sigmas) - 1), math.sqrt(2) - 1) if churned else 0.0))
            fresh = self.noise * math.sqrt(high**2 - now**2)
            guess = toward(x, x0, high, then)
            if then == 0:
                calls.append(Call(level=high, slots=(guess, base, first), before=fresh))
                break
            calls.append(Call(level=high, slots=(guess, x, x0), before=fresh, ends=False))
            slope = ((base - first) / high + (x - x0) / then) / 2
            calls.append(Call(level=then, slots=(base + (then - high) * slope, base, first)))
        return calls
