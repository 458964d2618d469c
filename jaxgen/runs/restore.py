"""A run taken up again to be looked at: its experiment, its classes and one of its states."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.optim import ema
from jaxgen.optim.ema import PowerEma
from jaxgen.parallel.mesh import MeshShape
from jaxgen.program import program
from jaxgen.runs.checkpoints import Checkpoints
from jaxgen.runs.folder import Data, RunFolder
from jaxgen.state import State
from jaxgen.typing import Tree

WORST = 0.1  # of a reconstructed profile: its difference from the wanted one, as a share of that one's norm


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `restore` finds."""

    experiment: Experiment
    data: Data
    mesh: Mesh
    step: int
    state: State


def with_average(run: Restored, folder: RunFolder, width: float) -> Restored:
    """Put the average of a relative width in the place of the first one: reconstructed from the run's snapshots.

    Post-hoc EMA (EDM2, arXiv:2312.02696, section 3.2). Raises UserError if the run kept no snapshots, or the width is
    so far from what was kept that the reconstruction would be another average.
    """
    widths = [a.width for a in getattr(run.experiment.objective, "averages", ()) if isinstance(a, PowerEma)]
    if not folder.snapshots.is_dir() or not widths:
        raise UserError(
            f"{folder.path} kept no snapshots of its averages; train it with averages such as Power(width=0.05) "
            "and Power(width=0.1), and --snapshot-every"
        )
    nets = run.state.nets
    with Checkpoints(folder.snapshots, writable=False) as snapshots:
        steps = [step for step in snapshots.steps if step <= run.step]
        stored = [(float(step), width) for step in steps for width in widths]
        if not stored:
            raise UserError(f"{folder.snapshots} holds no snapshot up to step {run.step}")
        factors = ema.reconstruction(stored, (float(run.step), width))
        off = ema.distance(stored, factors, (float(run.step), width))
        if off > WORST:
            raise UserError(
                f"an average of width {width} at step {run.step} cannot be made of the {len(steps)} snapshots at hand: "
                f"its profile would be off by {off:.0%}\nstay near {min(widths)}..{max(widths)}, or keep more snapshots"
            )
        total = jax.tree.map(jnp.zeros_like, {name: net.params for name, net in nets.items()})
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), averages(run.state)
        )
        for i, step in enumerate(steps):
            kept = snapshots.restore(step, shapes)
            for j in range(len(widths)):
                factor = float(factors[i * len(widths) + j])
                total = {
                    name: jax.tree.map(lambda t, x, f=factor: t + f * x, part, kept[name][j])
                    for name, part in total.items()
                }
    fresh = {name: net.replace(ema=(total[name], *net.ema[1:])) for name, net in nets.items()}
    return dataclasses.replace(run, state=State(step=run.state.step, nets=fresh, extra=run.state.extra))


def averages(state: State) -> Tree:
    """Return what a snapshot keeps of a state."""
    return {name: net.ema for name, net in state.nets.items()}


def restore(folder: RunFolder, step: int | None, say: Callable[[str], None]) -> Restored:
    """Read one step of a run, the newest whole one by default, onto the devices that are here.

    Raises UserError if there is no such run or step.
    """
    experiment, data = folder.experiment, folder.data
    try:
        mesh = experiment.mesh.build()
    except UserError:
        say(f"note: made for the mesh {experiment.mesh}; read onto the {jax.device_count()} device(s) here")
        experiment = dataclasses.replace(experiment, mesh=MeshShape(replica=1, fsdp=-1))
        mesh = experiment.mesh.build()
    shapes = program(experiment, mesh, data.element).shapes
    if not folder.checkpoints.is_dir():
        raise UserError(f"{folder.path} has no checkpoint yet")
    with Checkpoints(folder.checkpoints, writable=False) as checkpoints:
        if step is not None:
            return Restored(experiment, data, mesh, step, checkpoints.restore(step, shapes))
        found = checkpoints.restore_latest(shapes, lambda line: say(f"warning: {line}"))
    if found is None:
        raise UserError(f"{folder.path} has no checkpoint yet")
    return Restored(experiment, data, mesh, *found)
