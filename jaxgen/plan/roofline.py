"""How fast a compiled program can be at best: FLOPs, bytes of memory and bytes on links, each over the chip's rate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.objective import Objective
from jaxgen.plan.chips import Chip
from jaxgen.plan.collectives import Collective, collectives, memory_traffic
from jaxgen.plan.compile import Compiled
from jaxgen.plan.flops import of_jaxpr
from jaxgen.plan.topologies import Topology
from jaxgen.program import Program


def speed(
    mesh: Mesh, where: Topology, batch_size: int, operations: int, model: int, compiled: Compiled
) -> dict[str, Any]:
    """Return bytes on the links, the roofline and what follows from it; None where nothing is known.

    `operations` are the FLOPs of one execution on all devices, `model` those of them that MFU counts.
    """
    chip = where.chip
    if compiled.text is None or where.slices > 1:  # several slices run a program each, and talk by other means
        return dict.fromkeys(("collective_bytes", "roofline", "step_seconds", "images_per_second", "mfu"))
    sent = collectives(compiled.text, mesh.shape)
    report: dict[str, Any] = {"collective_bytes": summed(sent)}
    if chip is None:
        return report | dict.fromkeys(("roofline", "step_seconds", "images_per_second", "mfu"))
    seconds = {
        "compute": operations / where.chips / chip.peak,
        "memory": memory_traffic(compiled.text) * chip.cores / chip.bandwidth,
        "interconnect": sum(c.traffic / egress(group_of(mesh, c.axes), chip, where.shape) for c in sent),
    }
    step = max(seconds.values())
    return report | {
        "roofline": seconds | {"bound": max(seconds, key=lambda name: seconds[name]), "thorough": compiled.optimized},
        "step_seconds": step,
        "images_per_second": batch_size / step,
        "mfu": model / where.chips / chip.peak / step,
    }


def summed(sent: Sequence[Collective]) -> dict[str, Any]:
    """Return the bytes that a device sends in one execution: in all, by operation and by the mesh's axes."""
    kinds: dict[str, int] = {}
    axes: dict[str, int] = {}
    for one in sent:
        along = " x ".join(one.axes)
        kinds[one.kind] = kinds.get(one.kind, 0) + round(one.traffic)
        axes[along] = axes.get(along, 0) + round(one.traffic)
    return {"total": sum(kinds.values()), "by_kind": kinds, "by_axis": axes}


def group_of(mesh: Mesh, axes: Sequence[str]) -> list[Any]:
    """Return the devices that the first one shares these axes with, including itself."""
    return list(mesh.devices[tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)].flat)


def egress(group: Sequence[Any], chip: Chip, shape: Sequence[int]) -> float:
    """Return the bytes/s that a device can send to the others of its group, on slices of these sides.

    One link each way along every side of the slice that they spread over; both ways at once where they fill a side that
    closes into a ring. What stays on a chip goes through its memory.
    """
    rings = chip.rings(tuple(shape))
    rate = 0.0
    for dimension, side in enumerate(shape):
        spread = len({device.coords[dimension] for device in group})
        if spread > 1:
            rate += chip.link * (2 if spread == side and rings[dimension] else 1)
    return rate / chip.cores or chip.bandwidth / chip.cores


def step_flops(program: Program) -> int:
    """Return the FLOPs of one train step on all devices."""
    with jax.set_mesh(program.mesh):
        return of_jaxpr(program.step.function.trace(program.shapes, dict(program.spec)).jaxpr.jaxpr)


def model_flops(program: Program) -> int:
    """Return the step's FLOPs without those that recomputation repeats: what MFU counts (arXiv:2204.02311, app. B)."""
    plain = with_remat(program.experiment, remat=False)
    if plain != program.experiment:
        program = Program.laid_out(plain, program.data, list(program.mesh.devices.flat))
    return step_flops(program)


def with_remat(experiment: Experiment, *, remat: bool) -> Experiment:
    """Return the experiment with recomputation on or off in every net that offers it."""
    changed = with_modules(
        experiment.objective, lambda module: module.clone(remat=remat) if hasattr(module, "remat") else module
    )
    return dataclasses.replace(experiment, objective=changed)


def with_modules(objective: Objective, change: Callable[[nn.Module], nn.Module]) -> Objective:
    """Return the objective with the module of each of its learners changed."""
    value: Any = objective  # a dataclass, which its Protocol does not say
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    changed = {
        name: dataclasses.replace(learner, module=change(learner.module))
        for name, learner in fields.items()
        if isinstance(learner, Learner)
    }
    return dataclasses.replace(value, **changed)
