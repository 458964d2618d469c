"""A run taken up again to be looked at: its experiment, its classes and one of its states."""

import dataclasses
from collections.abc import Callable

import jax
from jax.sharding import Mesh

from jaxgen.checkpoint import Checkpoints
from jaxgen.experiment import Experiment
from jaxgen.parallel.mesh import MeshShape
from jaxgen.program import program
from jaxgen.run import Data, RunFolder
from jaxgen.state import State
from jaxgen.typing import UserError


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `restore` finds."""

    experiment: Experiment
    data: Data
    mesh: Mesh
    step: int
    state: State


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
