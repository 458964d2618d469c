"""How samples are drawn, as one value: a solver, a grid of levels and a guidance."""

import dataclasses

from jaxtyping import Array, Float, Key

from jaxgen.diffusion.guidance import Conditioned, Guidance, Unguided, guide
from jaxgen.diffusion.path import Path
from jaxgen.diffusion.sampling_schedules import Rho, SamplingSchedule
from jaxgen.diffusion.solvers import Heun, Solver, Trajectory, sample, start
from jaxgen.noise import Towards, fold, normal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """A way to draw samples from any denoiser."""

    solver: Solver = Heun()
    """How the reverse process is followed."""
    grid: SamplingSchedule = Rho()
    """At which levels."""
    guidance: Guidance = Unguided()
    """What is made of labels."""

    def check(self, path: Path, *, conditional: bool, droppable: bool, weak: bool) -> None:
        """Raise UserError where solver, grid, path and guidance do not go together; see `Guidance.check`."""
        self.guidance.check(conditional=conditional, droppable=droppable, weak=weak)
        self.solver.levels(self.grid.sigmas(path))

    def nfe(self, path: Path) -> int | None:
        """Return how often a net is evaluated for one sample; None where that depends on the sample."""
        levels = self.solver.levels(self.grid.sigmas(path))
        return None if levels is None else sum(self.guidance.evaluations(float(level)) for level in levels)

    def run(
        self,
        net: Conditioned,
        path: Path,
        shape: tuple[int, ...],
        keys: Key[Array, " b"],
        *,
        label: Float[Array, "b n"] | None = None,
        null: Float[Array, "b n"] | None = None,
        weak: Conditioned | None = None,
        trace: bool = False,
        towards: Towards | None = None,
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        """Draw one sample f32[*shape] for each key, and return with `trace` the way there.

        `label` are weights over the classes and the null column, which is what `null` weighs alone unless it is given;
        None for a net without labels. `weak` is the worse net of Autoguidance. Sample i depends on keys[i] and its own
        labels only: it begins with normal(fold_in(keys[i], 0)), guidance draws from fold_in(keys[i], 1), and the solver
        from fold_in(keys[i], 2). With `towards` the beginning lies on the arc to that of other keys.
        """
        sigmas = self.grid.sigmas(path)
        labels, later = fold(keys, 1), fold(keys, 2)
        noise = normal(keys, 0, shape, towards)
        guided = guide(self.guidance, net, label, labels, null=null, weak=weak)
        x = start(noise, sigmas)
        if trace:
            return sample(self.solver, guided, sigmas, x, later, trace=True)
        return sample(self.solver, guided, sigmas, x, later), None
