"""Posterior sampling where nothing need be linear: solvers that draw x0 anew at each noise level, and noise it again.

The formula of `methods` needs y to be linear in x0. Here x0 is drawn at each level from a Gaussian times p(y | x0),
whatever that is (see `draws`): y may be clipped, rounded, or have gone through a curve. A sample knows y because its
solver does; guidance is free for what else there is.
"""

import abc
import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.diffusion.guidance import Guidance
from jaxgen.diffusion.multistep import Dpm2MSde
from jaxgen.diffusion.solvers import Call, Solver, StatefulDenoise, Trajectory, finite
from jaxgen.errors import UserError, check_field
from jaxgen.noise import fold, normal
from jaxgen.restoration.draws import Hamiltonian, Measurement
from jaxgen.restoration.guidance import Restoring
from jaxgen.restoration.methods import Method
from jaxgen.typing import Tree


class Round(NamedTuple):
    """What is done at one noise level: calls of the net, a draw that knows y, and noise up to the next level."""

    calls: list[Call]  # the last of them leaves x at the mean of the draw; none adds noise before it
    spread: float  # variance of the draw's Gaussian; 0 for no draw
    after: float  # deviation of the noise that is added in the end


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds(abc.ABC):
    """A way to draw x0 given y, in rounds."""

    draws: Hamiltonian = Hamiltonian()
    """How x0 is drawn where y is not linear in it."""

    @abc.abstractmethod
    def rounds(self, sigmas: np.ndarray) -> list[Round]:
        """Write down the rounds for these noise levels, one for each step of the schedule."""

    def check(self, damage: Measurement) -> None:
        """Raise UserError where this cannot draw."""
        self.draws.check(damage)

    def solver(self, damage: Measurement, measured: Float[Array, "n *m"]) -> Solver:
        """Return the solver whose samples know y, a row for each or a single one for all.

        It takes the place of a run's solver: `objective.with_options({"solver": …})`.
        """
        return _Knowing(way=self, damage=damage, measured=measured)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Daps(Rounds):
    """At each level x0 is drawn from N(D, r² I) p(y | x0), r² = d² σ² / (d² + σ²), and noised again (arXiv:2407.01521).

    Exact for data of covariance d² I, at any number of levels. D is the estimate of x0, one call of the net, where the
    paper takes the end of a short ODE: D is the mean of x0 given x, and the ODE's end spreads too far.
    """

    data_std: float = 1.0
    """d; inf for the paper's r = σ."""

    def __post_init__(self) -> None:
        check_field(self, "data_std", self.data_std > 0, "above 0")

    def rounds(self, sigmas: np.ndarray) -> list[Round]:
        _, x0 = np.eye(2)
        if math.isinf(self.data_std):
            finite(sigmas, self, "give a data_std, or a schedule with a finite first level")
        return [
            Round([Call(level=now, slots=(x0,))], 1 / (1 / self.data_std**2 + 1 / now**2), then)
            for now, then in itertools.pairwise(sigmas)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitGibbs(Rounds):
    """x0 given z from z at level ρ by an SDE's solver, then z given x0 from N(x0, ρ² I) p(y | z) (arXiv:2405.18782).

    ρ falls from round to round, down the schedule. Exact for any data as ρ goes to 0, if it falls slowly: at one ρ it
    takes about (s / ρ)² rounds to forget, s being how far apart likely pictures are.
    """

    steps: int = 8
    """Calls of the net in a round, at levels of the schedule from ρ on."""

    def __post_init__(self) -> None:
        check_field(self, "steps", self.steps >= 1, "at least 1")

    def rounds(self, sigmas: np.ndarray) -> list[Round]:
        down = np.append(sigmas[sigmas > 0], 0.0)
        made = []
        for i, then in enumerate(sigmas[1:]):
            chosen = np.unique(np.round(np.linspace(i, len(down) - 1, self.steps + 1)).astype(int))
            made.append(Round(Dpm2MSde().calls(down[chosen]), then**2, 0.0))
        return made


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Knowing(Solver):
    """The solver of rounds, for measurements: one loop over the calls of all rounds."""

    way: Rounds
    damage: Any
    measured: Float[Array, "n *m"]

    @property
    def order(self) -> int:
        return 1

    def levels(self, sigmas: np.ndarray) -> np.ndarray | None:
        return np.asarray([call.level for each in self.way.rounds(sigmas) for call in each.calls])

    def solve(
        self, denoise: StatefulDenoise, sigmas: np.ndarray, x: Float[Array, "b *s"], keys: Key[Array, " b"], trace: bool
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        if len(self.measured) not in (1, len(x)):
            raise UserError(
                f"there are {len(self.measured)} measurements for {len(x)} samples: give one, or one for each"
            )
        self.way.check(self.damage)
        steepest = self.damage.steepest(x)
        table = _table(self.way.rounds(sigmas))
        first = int(np.argmax(table.spread > 0))

        def call(carry: Tree, row: Tree) -> tuple[Tree, Tree]:
            (x, *kept), drawn, memory = carry
            k, level, slots, fresh, spread, after = row
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, k)
            noise = normal(own, 0, x.shape[1:]).astype(x.dtype)
            x0, memory = denoise.step(x, level, memory)
            x0 = x0.astype(x.dtype)
            terms = (x, *kept, x0)
            x, *kept = (_sum(slot, terms) for slot in slots)
            x = x + fresh * noise

            def draw() -> Array:
                # A right draw is also one of x0 given x, which was made of it: the next ones may begin there.
                start = jnp.where(k == first, x, drawn)
                return self.way.draws.draw(self.damage, self.measured, x, spread, start, fold(own, 1), steepest)

            drawn = jax.lax.cond(spread > 0, draw, lambda: drawn)
            x = jnp.where(spread > 0, drawn + after * noise, x)
            return ((x, *kept), drawn, memory), (x, x0) if trace else None

        rows = tuple(jnp.asarray(column, x.dtype) for column in table[:-1])
        kept = [jnp.zeros_like(x)] * (table.slots.shape[1] - 1)
        start = (x, *kept), x, denoise.memory(x)
        ((end, *_), _, _), seen = jax.lax.scan(call, start, (jnp.arange(len(table.level)), *rows))
        if not trace:
            return end, None
        ends = np.flatnonzero(table.ends)
        return end, Trajectory(x=jnp.concatenate([x[None], seen[0][ends]]), x0=seen[1][ends])


def _sum(shares: Float[Array, " k"], terms: Sequence[Float[Array, "b *s"]]) -> Float[Array, "b *s"]:
    first, *rest = (share * term for share, term in zip(shares, terms, strict=True))
    return sum(rest, first)


class _Table(NamedTuple):
    """All calls, a row each."""

    level: np.ndarray
    slots: np.ndarray  # f64[n s s+1], as of `Call`
    fresh: np.ndarray
    spread: np.ndarray
    after: np.ndarray
    ends: np.ndarray  # bool[n]: the last call of a round


def _table(rounds: list[Round]) -> _Table:
    rows = []
    for each in rounds:
        for i, call in enumerate(each.calls):
            ends = i == len(each.calls) - 1
            rows.append((call.level, np.asarray(call.slots), call.after, ends * each.spread, ends * each.after, ends))
    return _Table(*(np.asarray(column) for column in zip(*rows, strict=True)))


WAYS: dict[str, type] = {"Daps": Daps, "Hamiltonian": Hamiltonian, "SplitGibbs": SplitGibbs}  # to be chosen by name


def options(method: Method | Rounds, damage: Any, measured: Float[Array, "n *m"], inner: Guidance) -> dict[str, Any]:
    """Return with which options an objective's samples know y: a guidance, or a solver and `inner` as it is."""
    if isinstance(method, Rounds):
        return {"solver": method.solver(damage, measured), "guidance": inner}
    return {"guidance": Restoring(damage=damage, measured=measured, method=method, inner=inner)}
