"""A solver that chooses its own steps, separately for each sample, by diffrax."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.diffusion.solvers import Solver, StatefulDenoise, Trajectory
from jaxgen.errors import UserError
from jaxgen.typing import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive(Solver):
    """Tsitouras' 5(4) pair with a PID controller, in the flow's time (see `flow`); it may start at pure noise.

    Of the schedule only the ends count, and the last level above 0: from there a schedule that ends at 0 jumps to the
    denoised image, so that level should be small. Each sample is stepped on its own, so none depends on its batch. A
    denoiser that is a closure over a condition cannot be split like this: pass the condition through `guidance.guide`.
    The number of calls of the net is not known in advance.
    """

    rtol: float = 1e-4
    """Allowed error of a step, relative to the state."""
    atol: float = 1e-4
    """The same, absolute."""
    max_steps: int = 4096
    """Steps after which it is an error not to have reached the end."""

    def __post_init__(self) -> None:
        if not (self.rtol > 0 and self.atol > 0):
            raise UserError(f"Adaptive.rtol and atol are above 0; got {self.rtol} and {self.atol}")

    @property
    def order(self) -> int:
        return 5

    def levels(self, sigmas: np.ndarray) -> np.ndarray | None:
        if len(sigmas) == 2 and sigmas[-1] == 0:
            raise UserError("Adaptive needs a last level above 0: give the schedule at least 2 steps")
        return None

    def solve(
        self, denoise: StatefulDenoise, sigmas: np.ndarray, x: Float[Array, "b *s"], keys: Key[Array, " b"], trace: bool
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        import diffrax  # takes as long to import as flax, and no other solver needs it

        if jax.tree.leaves(denoise.memory(x)):
            raise UserError("Adaptive tries steps twice, so guidance cannot have a memory: use momentum=0")
        above = sigmas[sigmas > 0]
        # t / (1 - t) gives sigma back to float32's precision only, as are all levels here.
        times = jnp.asarray(
            np.where(np.isinf(above), 1.0, above / (1 + np.where(np.isinf(above), 0.0, above))), x.dtype
        )

        def one(net: StatefulDenoise, z: Float[Array, "*s"]) -> tuple[Array, Array]:
            def x0(t: Float[Array, ""], z: Float[Array, "*s"]) -> Float[Array, "*s"]:
                row = (z / _signal(t))[None]
                return net.step(row, t / (1 - t), net.memory(row))[0][0].astype(z.dtype)

            def velocity(t: Float[Array, ""], z: Float[Array, "*s"], _: None) -> Float[Array, "*s"]:
                return (z - x0(t, z)) / t

            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(velocity),
                diffrax.Tsit5(),
                t0=times[0],
                t1=times[-1],
                dt0=None,
                y0=z,
                saveat=diffrax.SaveAt(ts=times) if trace else diffrax.SaveAt(t1=True),
                stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
                max_steps=self.max_steps,
            )
            states: Tree = solution.ys
            last = states[-1]
            estimates = jax.lax.map(lambda row: x0(*row), (times, states)) if trace else x0(times[-1], last)[None]
            passed = jax.vmap(lambda t, z: z / _signal(t))(times if trace else times[-1:], states)
            return passed, estimates

        rows = jax.tree.map(lambda leaf: leaf[:, None], denoise)
        passed, estimates = jax.vmap(one, out_axes=1)(rows, x * _signal(times[0]))
        end = estimates[-1] if sigmas[-1] == 0 else passed[-1]
        if not trace:
            return end, None
        return end, Trajectory(
            x=jnp.concatenate([x[None], passed[1:], end[None]])[: len(sigmas)], x0=estimates[: len(sigmas) - 1]
        )


def _signal(t: Float[Array, ""]) -> Float[Array, ""]:
    """z / x: 1 - t, but 1 at pure noise, where both are the noise."""
    return jnp.where(t < 1, 1 - t, 1.0).astype(t.dtype)
