"""What a run needs on devices that are not there: its real train step, compiled for them.

Nothing here is measured. Memory is what the compiler allocates, FLOPs and bytes are counted, and times are a roofline:
a bound that no run can beat, reached where everything overlaps and nothing waits.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import tree
from jaxgen.data.batches import DataSpec
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.objective import Generative
from jaxgen.parallel.mesh import batch_parts, batch_sharding, replicated
from jaxgen.plan.compile import Compiled, compile_for
from jaxgen.plan.flops import of_jaxpr
from jaxgen.plan.hlo import unknown_loops
from jaxgen.plan.roofline import model_flops, speed, step_flops
from jaxgen.plan.topologies import Topology
from jaxgen.program import Program

KINDS = {"params": "parameters", "opt": "optimizer", "ema": "ema", "stats": "statistics"}


def plan(experiment: Experiment, data: DataSpec, where: Topology, *, thorough: bool = False) -> dict[str, Any]:
    """Compile the train step for a topology and return what it needs, ready for JSON.

    The TPU's compiler takes minutes to optimize a long program: unless `thorough`, it then does so at its level O1.
    The same bytes are sent, and memory comes out lower, by 4 % (DiT-XL/2), 6 % (EDM2-S) or 11 % (R3GAN on FFHQ, all for
    v5e); but less stays on the chip, so that the roofline's memory is an upper bound, there up to 4 times too high.

    Raises UserError where the experiment does not fit the mesh; that it does not fit the memory is a result.
    """
    program = Program.of(experiment, data, where.devices)
    operations = step_flops(program)
    batch: Any = dict(program.spec)  # shapes in the place of arrays
    compiled = compile_for(program.step.lower(program.shapes, batch), where, thorough=thorough)
    report: dict[str, Any] = {
        "topology": where.name,
        "chip": where.chip.name if where.chip else "fake CPU device",
        "chips": where.chips,
        "slices": where.slices,
        "mesh": dict(program.mesh.shape),
        "batch_size": experiment.batch_size,
        "parameters": sum(tree.count(net.params) for net in program.shapes.nets.values()),
    }
    report |= _demand(where, kept(program), operations, compiled)
    report |= speed(program.mesh, where, experiment.batch_size, operations, model_flops(program), compiled)
    if report["step_seconds"] is not None:
        hours = experiment.steps * report["step_seconds"] / 3600
        report |= {"steps": experiment.steps, "hours": hours, "chip_hours": hours * where.chips}
    return report


def plan_sampling(experiment: Experiment, data: DataSpec, where: Topology) -> dict[str, Any]:
    """Compile the drawing of one batch of `test_batch_size` samples, as `plan` does the train step."""
    objective = experiment.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} draws no samples; drop --sample")
    objective.check_sampling(guide=False)
    program = Program.of(experiment, data, where.devices)
    mesh, parts = program.mesh, batch_parts(program.mesh)
    size = -(-experiment.test_batch_size // parts) * parts

    def rows(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((size, *shape), dtype, sharding=batch_sharding(mesh, (size, *shape)))

    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated(mesh))
    condition = {name: rows(*data.element[name]) for name in objective.conditions()}
    arguments = (program.shapes, None, seed, rows((), jnp.int32), condition, None)
    # Outside the mesh: paths compute their tables while they are traced, and these devices compute nothing.
    draw = program.sample.function
    operations = of_jaxpr(draw.trace(*arguments).jaxpr.jaxpr)
    compiled = compile_for(draw.lower(*arguments), where, thorough=False)
    state = kept(program)
    del state["batch"]
    report = {"batch_size": size, **_demand(where, state, operations, compiled)}
    return report | speed(mesh, where, size, operations, operations, compiled)


def smallest_batch(experiment: Experiment, where: Topology) -> int:
    """Return the smallest batch that divides over the devices, and into the parts that they compute in turn."""
    objective = experiment.objective
    return batch_parts(experiment.mesh.build(where.devices)) * objective.microbatches * objective.batch_parts


def dividing(experiment: Experiment, where: Topology) -> tuple[Experiment, list[str]]:
    """Return the experiment with the next batch size that divides over the devices, and a note if it is larger."""
    unit, own = smallest_batch(experiment, where), experiment.batch_size
    size = -(-own // unit) * unit
    note = f"note: the config's batch of {own} does not divide over {where.name}; planned for {size}"
    return dataclasses.replace(experiment, batch_size=size), [] if size == own else [note]


def kept(program: Program) -> dict[str, int]:
    """Return the bytes that a device holds of each kind of state, and of a batch: arithmetic alone."""
    sizes = dict.fromkeys((*KINDS.values(), "other", "batch"), 0)
    for path, leaf in tree.leaves(program.shapes):
        parts = path.split("/")
        kind = KINDS.get(parts[2], "other") if parts[0] == "nets" else "other"
        sizes[kind] += _local(leaf)
    sizes["batch"] = sum(map(_local, program.spec.values()))
    return sizes


def _local(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _demand(where: Topology, state: dict[str, int], operations: int, compiled: Compiled) -> dict[str, Any]:
    """Return what a chip must hold and compute, and whether it can hold it; None for a fake device."""
    cores = where.chip.cores if where.chip else 1
    return {
        "fits": None if where.chip is None else compiled.text is not None,
        "bytes_per_chip": {k: cores * v for k, v in state.items()} | _spent(compiled, sum(state.values()), cores),
        "hbm_bytes": where.chip.memory if where.chip else None,
        "flops_per_chip_per_step": operations // where.chips,
        # Loops that are counted once, so that FLOPs, bytes and seconds are too small.
        "unknown_loops": None if compiled.text is None else unknown_loops(compiled.text),
    }


def _spent(compiled: Compiled, state: int, cores: int) -> dict[str, int]:
    """Return a chip's bytes in addition to the state's: what the program takes, and the total."""
    if compiled.memory is None:  # the compiler stopped at the program's temporaries, or at everything together
        more = {"activations": compiled.needed} if compiled.temporaries else {}
        total = state + compiled.needed if more else compiled.needed
        return {k: cores * v for k, v in (more | {"total": total}).items()}
    memory = compiled.memory
    more = {
        "padding": memory.argument_size_in_bytes - state,  # of arrays to the tiles that the chip reads
        "activations": memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    return {kind: cores * size for kind, size in more.items()} | {"total": cores * (state + sum(more.values()))}
