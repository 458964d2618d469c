"""A run folder opened again to be used: its program, and one of its states."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.optim import ema
from jaxgen.optim.ema import PowerEma
from jaxgen.parallel.mesh import MeshShape
from jaxgen.program import Program
from jaxgen.runs.checkpoints import Checkpoints
from jaxgen.runs.folder import RunFolder
from jaxgen.state import State
from jaxgen.typing import Tree

WORST = 0.1  # of a reconstructed profile: its difference from the wanted one, as a share of that one's norm


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `restore` returns."""

    program: Program
    step: int
    state: State

    @property
    def experiment(self) -> Experiment:
        return self.program.experiment

    @property
    def classes(self) -> tuple[str, ...]:
        return self.program.data.classes

    def with_experiment(self, experiment: Experiment) -> "Restored":
        """Return the run with another experiment of the same nets: other metrics, or another way to make samples."""
        return dataclasses.replace(self, program=dataclasses.replace(self.program, experiment=experiment))


def restore(folder: RunFolder, step: int | None, say: Callable[[str], None]) -> Restored:
    """Read one step of a run, the newest whole one by default, onto the devices that are here.

    Raises UserError if there is no such run or step.
    """
    experiment, data = folder.experiment, folder.data
    try:
        experiment.mesh.build()
    except UserError:
        say(f"note: made for the mesh {experiment.mesh}; read onto the {jax.device_count()} device(s) here")
        experiment = dataclasses.replace(experiment, mesh=MeshShape(replica=1, fsdp=-1))
    program = Program.laid_out(experiment, data)
    if not folder.checkpoints.is_dir():
        raise UserError(f"{folder.path} has no checkpoint yet")
    with Checkpoints(folder.checkpoints, writable=False) as checkpoints:
        if step is not None:
            return Restored(program, step, checkpoints.restore(step, program.shapes))
        latest = checkpoints.restore_latest(program.shapes, lambda line: say(f"warning: {line}"))
    if latest is None:
        raise UserError(f"{folder.path} has no checkpoint yet")
    return Restored(program, *latest)


def emas(state: State) -> Tree:
    """Return what a snapshot keeps of a state."""
    return {name: net.ema for name, net in state.nets.items()}


def widths(learner: Learner) -> list[float]:
    """Return the relative widths of a learner's power-function EMAs, from which others can be reconstructed."""
    return [one.width for one in learner.ema if isinstance(one, PowerEma)]


def with_ema(run: Restored, snapshots: pathlib.Path, width: float) -> Restored:
    """Replace each net's first EMA by one of another relative width, reconstructed from the run's snapshots.

    Post-hoc EMA (EDM2, arXiv:2312.02696, section 3.2). Raises UserError if the run kept no snapshots, or the width is
    so far from what was kept that the reconstruction would be another average.
    """
    learners = run.program.objective.learners
    kept = {name: widths(learner) for name, learner in learners.items() if widths(learner)}
    if not snapshots.is_dir() or not kept:
        raise UserError(
            f"{snapshots.parent} kept no snapshots of its EMAs; train it with ema=(PowerEma(width=0.05), "
            "PowerEma(width=0.1)), and --snapshot-every"
        )
    nets = dict(run.state.nets)
    with Checkpoints(snapshots, writable=False) as store:
        steps = [step for step in store.steps if step <= run.step]
        if not steps:
            raise UserError(f"{snapshots} holds no snapshot up to step {run.step}")
        factors = {name: _factors(steps, own, run.step, width) for name, own in kept.items()}
        total = {name: jax.tree.map(jnp.zeros_like, nets[name].params) for name in kept}
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), emas(run.state))
        for step in steps:
            stored = store.restore(step, shapes)
            for name, own in kept.items():
                for j, each in enumerate(own):
                    factor = factors[name][step, each]
                    total[name] = jax.tree.map(lambda t, x, f=factor: t + f * x, total[name], stored[name][j])
    nets |= {name: nets[name].replace(ema=(total[name], *nets[name].ema[1:])) for name in kept}
    state = State(step=run.state.step, nets=nets, extra=run.state.extra)
    return dataclasses.replace(run, state=state)


def _factors(steps: list[int], own: list[float], end: int, width: float) -> dict[tuple[int, float], float]:
    """Return the factor of each stored EMA (step, width) in the wanted one.

    Raises UserError where the reconstructed profile would be too far from the wanted one.
    """
    keys = [(step, each) for step in steps for each in own]
    stored = [(float(step), each) for step, each in keys]
    factors = ema.reconstruction(stored, (float(end), width))
    off = ema.distance(stored, factors, (float(end), width))
    if off > WORST:
        raise UserError(
            f"an EMA of width {width} at step {end} cannot be made of the {len(steps)} snapshots at hand: "
            f"its profile would be off by {off:.0%}\nstay near {min(own)}..{max(own)}, or keep more snapshots"
        )
    return {key: float(factor) for key, factor in zip(keys, factors, strict=True)}
