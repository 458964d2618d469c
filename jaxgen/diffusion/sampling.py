"""How samples are drawn, as one value: a solver, a sampling schedule and a guidance."""

import dataclasses

from jaxtyping import Array, Float, Key

from jaxgen.diffusion.guidance import Conditioned, Guidance, Unguided
from jaxgen.diffusion.guidance import guide as bind
from jaxgen.diffusion.path import Path
from jaxgen.diffusion.sampling_schedules import Rho, SamplingSchedule
from jaxgen.diffusion.solvers import Heun, Solver, Trajectory, sample, start
from jaxgen.noise import fold
from jaxgen.typing import Condition


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """A way to draw samples from any denoiser."""

    solver: Solver = Heun()
    """How the reverse process is followed."""
    schedule: SamplingSchedule = Rho()
    """At which noise levels."""
    guidance: Guidance = Unguided()
    """How the estimates with and without a condition, or of a guiding model, are combined."""

    def check(self, path: Path, *, conditional: bool, droppable: bool, guide: bool) -> None:
        """Raise UserError where solver, schedule, path and guidance do not go together; see `Guidance.check`."""
        self.guidance.check(conditional=conditional, droppable=droppable, guide=guide)
        self.solver.levels(self.schedule.sigmas(path))

    def nfe(self, path: Path) -> int | None:
        """Return how often a net is evaluated for one sample; None where that depends on the sample."""
        levels = self.solver.levels(self.schedule.sigmas(path))
        return None if levels is None else sum(self.guidance.evaluations(float(level)) for level in levels)

    def run(
        self,
        net: Conditioned,
        path: Path,
        noise: Float[Array, "b *s"],
        keys: Key[Array, " b"],
        *,
        condition: Condition,
        null: Condition | None = None,
        guide: Conditioned | None = None,
        trace: bool = False,
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        """Draw one sample from each row of standard normal noise; with `trace` return its trajectory too.

        `condition` is {} for an unconditional net; for `null` see `guidance.guide`. `guide` is the guiding model of
        Autoguidance. Sample i depends on noise[i], keys[i] and its own condition only: guidance draws from
        fold_in(keys[i], 1), the solver from fold_in(keys[i], 2).
        """
        sigmas = self.schedule.sigmas(path)
        guided = bind(self.guidance, net, condition, fold(keys, 1), null=null, guide_net=guide)
        x, solver_keys = start(noise, sigmas), fold(keys, 2)
        if trace:
            return sample(self.solver, guided, sigmas, x, solver_keys, trace=True)
        return sample(self.solver, guided, sigmas, x, solver_keys), None
