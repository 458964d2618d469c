"""What a run will need and how fast it can be on devices that are not there: its real train step, compiled for them.

Nothing here is measured. Memory is what the compiler allots, FLOPs and bytes are counted, and times are a roofline's:
a bound that nothing can beat, reached where everything overlaps and nothing waits.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.objective import Generative
from jaxgen.parallel.mesh import batch_parts, batch_sharding, check_batch, replicated
from jaxgen.plan.chips import Chip
from jaxgen.plan.collectives import Collective, collectives, memory_traffic
from jaxgen.plan.flops import flops
from jaxgen.plan.topologies import Topology
from jaxgen.program import Program, program
from jaxgen.runs.folder import Data
from jaxgen.sampling import sampler

KINDS = {"params": "parameters", "opt": "optimizer", "ema": "ema", "stats": "statistics"}
# Lines of a program: FCN-R50 has 11,430 and takes the compiler 2 to 3 minutes on two cores, EDM2-S 32,487 and 5.
LONG = 12_000
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def plan(experiment: Experiment, data: Data, where: Topology, *, thorough: bool = False) -> dict[str, Any]:
    """Compile the train step for a topology and say what it takes, ready for JSON.

    The TPU's compiler takes minutes to optimize a long program: unless `thorough`, it then does so at its level O1.
    The same bytes are sent, and memory comes out lower, by 4 % (DiT-XL/2), 6 % (EDM2-S) or 11 % (R3GAN on FFHQ, all for
    v5e); but less stays on the chip, so that the roofline's memory is an upper bound, there up to 4 times too high.

    Raises UserError where the experiment does not fit the mesh; that it does not fit the memory is an answer.
    """
    run = assembled(experiment, data, where)
    with jax.set_mesh(run.mesh):
        batch = dict(run.spec)
        operations = flops(run.step, run.shapes, batch)
        lowered = run.step.lower(run.shapes, batch)  # pyrefly: ignore[missing-attribute]
        found = _compiled(lowered, where, thorough)
    told: dict[str, Any] = {
        "topology": where.name,
        "chip": where.chip.name if where.chip else "fake CPU device",
        "chips": where.chips,
        "slices": where.slices,
        "mesh": dict(run.mesh.shape),
        "batch_size": experiment.batch_size,
        "parameters": sum(tree.count(net.params) for net in run.shapes.nets.values()),
    }
    told |= _demand(where, _kept(run), operations, found)
    return told | _speed(experiment, run.mesh, where, operations, model_flops(experiment, data, run), found)


def plan_sampling(experiment: Experiment, data: Data, where: Topology) -> dict[str, Any]:
    """Compile the drawing of one batch of `test_batch_size` samples, as `plan` does the train step."""
    objective = experiment.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} draws no samples; drop --sample")
    run = assembled(experiment, data, where)
    parts = batch_parts(run.mesh)
    size = -(-experiment.test_batch_size // parts) * parts
    rows = jax.ShapeDtypeStruct((size,), jnp.int32, sharding=batch_sharding(run.mesh))
    seed = jax.ShapeDtypeStruct((), jnp.uint32, sharding=replicated(run.mesh))
    arguments = (run.shapes, None, seed, rows, rows if objective.conditional() else None, None)
    # Outside the mesh: paths compute their tables while they are traced, and these devices compute nothing.
    draw = sampler(objective, run.mesh, data.element["image"][0])
    operations = flops(draw, *arguments)
    found = _compiled(draw.lower(*arguments), where, thorough=False)
    kept = _kept(run)
    del kept["batch"]
    told = {"batch_size": size, **_demand(where, kept, operations, found)}
    sampled = dataclasses.replace(experiment, batch_size=size)
    return told | _speed(sampled, run.mesh, where, operations, operations, found)


def smallest_batch(experiment: Experiment, where: Topology) -> int:
    """Return the smallest batch that divides over the devices, and over the turns in which they work it off."""
    objective: Any = experiment.objective
    turns = objective.microbatches * getattr(objective, "parts", 1)
    return batch_parts(experiment.mesh.build(where.devices)) * turns


def dividing(experiment: Experiment, where: Topology) -> tuple[Experiment, list[str]]:
    """Return the experiment with the next batch that divides over the devices, and a word about it if it grew."""
    unit, own = smallest_batch(experiment, where), experiment.batch_size
    size = -(-own // unit) * unit
    note = f"note: the config's batch of {own} does not divide over {where.name}; planned for {size}"
    return dataclasses.replace(experiment, batch_size=size), [] if size == own else [note]


def assembled(experiment: Experiment, data: Data, where: Topology) -> Program:
    """Lay an experiment out on a topology's devices.

    Raises UserError where mesh, rule, batch and data do not fit each other.
    """
    mesh = experiment.mesh.build(where.devices)
    check_batch(mesh, experiment.batch_size)
    run = program(experiment, mesh, data.element)
    experiment.objective.check(run.spec, data.classes)
    return run


@dataclasses.dataclass(frozen=True)
class _Found:
    """What the compiler made: a program's text and memory, or else the bytes that a device would need."""

    text: str | None
    memory: Any = None
    optimized: bool = True
    needed: int = 0
    temporaries: bool = False
    """Whether `needed` is beside the state."""


def _compiled(lowered: Any, where: Topology, thorough: bool) -> _Found:
    optimized = thorough or where.chip is None or lowered.as_text().count("\n") <= LONG
    try:
        made = lowered.compile({} if optimized else {"optimization_level": "O1"})
    except jax.errors.JaxRuntimeError as error:
        needed = _needed(str(error))
        if needed is None:
            raise
        return _Found(None, needed=needed, temporaries="temporaries" in str(error))
    return _Found(made.as_text(), made.memory_analysis(), optimized)


def _needed(message: str) -> int | None:
    """Read the bytes needed from the TPU compiler's words for too little memory, the first of its numbers; or None."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    sizes = [float(n) * UNITS[unit] for n, unit in re.findall(r"\b(\d+(?:\.\d+)?)([KMGT])\b", message)]
    return round(sizes[0]) if sizes else None


def _kept(run: Program) -> dict[str, int]:
    """Bytes that a device holds of each kind of state, and of a batch: arithmetic alone."""
    found = dict.fromkeys((*KINDS.values(), "other", "batch"), 0)
    for path, leaf in tree.leaves(run.shapes):
        parts = path.split("/")
        kind = KINDS.get(parts[2], "other") if parts[0] == "nets" else "other"
        found[kind] += _local(leaf)
    found["batch"] = sum(map(_local, run.spec.values()))
    return found


def _local(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def _demand(where: Topology, kept: dict[str, int], operations: int, found: _Found) -> dict[str, Any]:
    """What a chip must hold and compute, and whether it can hold it; nobody knows of a fake device."""
    cores = where.chip.cores if where.chip else 1
    return {
        "fits": None if where.chip is None else found.text is not None,
        "bytes_per_chip": {k: cores * v for k, v in kept.items()} | _spent(found, sum(kept.values()), cores),
        "hbm_bytes": where.chip.memory if where.chip else None,
        "flops_per_chip_per_step": operations // where.chips,
    }


def _spent(found: _Found, kept: int, cores: int) -> dict[str, int]:
    """Bytes of a chip beside the state's: what the program takes, and all together."""
    if found.memory is None:  # the compiler gave up at what it keeps between the state's arrays, or at everything
        more = {"activations": found.needed} if found.temporaries else {}
        return {k: cores * v for k, v in (more | {"total": kept + found.needed if more else found.needed}).items()}
    memory = found.memory
    more = {
        "padding": memory.argument_size_in_bytes - kept,  # of arrays to the tiles that the chip reads
        "activations": memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    return {kind: cores * size for kind, size in more.items()} | {"total": cores * (kept + sum(more.values()))}


def model_flops(experiment: Experiment, data: Data, run: Program) -> int:
    """FLOPs of the step without those that recomputation repeats: what MFU counts (PaLM, arXiv:2204.02311, app. B)."""
    plain = with_remat(experiment, remat=False)
    if plain != experiment:
        run = program(plain, run.mesh, data.element)
    with jax.set_mesh(run.mesh):
        return flops(run.step, run.shapes, dict(run.spec))


def with_remat(experiment: Experiment, *, remat: bool) -> Experiment:
    """Return the experiment with recomputation on or off in every net that offers it."""
    objective: Any = experiment.objective
    nets = {f.name: getattr(objective, f.name) for f in dataclasses.fields(objective)}
    changed = {k: v.clone(remat=remat) for k, v in nets.items() if isinstance(v, nn.Module) and hasattr(v, "remat")}
    return dataclasses.replace(experiment, objective=dataclasses.replace(objective, **changed))


def _speed(
    experiment: Experiment, mesh: Mesh, where: Topology, operations: int, model: int, found: _Found
) -> dict[str, Any]:
    """Bytes on the links, the roofline and what follows from it; None where there is nothing to say."""
    chip = where.chip
    if found.text is None or where.slices > 1:  # several slices run a program each, and talk by other means
        return dict.fromkeys(("collective_bytes", "roofline", "step_seconds", "images_per_second", "mfu"))
    sent = collectives(found.text, mesh.shape)
    told: dict[str, Any] = {"collective_bytes": _summed(sent)}
    if chip is None:
        return told | dict.fromkeys(("roofline", "step_seconds", "images_per_second", "mfu"))
    seconds = {
        "compute": operations / where.chips / chip.peak,
        "memory": memory_traffic(found.text) * chip.cores / chip.bandwidth,
        "interconnect": sum(c.traffic / egress(group_of(mesh, c.axes), chip, where.shape) for c in sent),
    }
    step = max(seconds.values())
    return told | {
        "roofline": seconds | {"bound": max(seconds, key=lambda name: seconds[name]), "thorough": found.optimized},
        "step_seconds": step,
        "images_per_second": experiment.batch_size / step,
        "mfu": model / where.chips / chip.peak / step,
        "steps": experiment.steps,
        "hours": experiment.steps * step / 3600,
        "chip_hours": experiment.steps * step / 3600 * where.chips,
    }


def _summed(sent: Sequence[Collective]) -> dict[str, Any]:
    """Bytes that a device sends in a step, in all, by operation and by the mesh's axes."""
    kinds: dict[str, int] = {}
    axes: dict[str, int] = {}
    for one in sent:
        along = " x ".join(one.axes)
        kinds[one.kind] = kinds.get(one.kind, 0) + round(one.traffic)
        axes[along] = axes.get(along, 0) + round(one.traffic)
    return {"total": sum(kinds.values()), "by_kind": kinds, "by_axis": axes}


def group_of(mesh: Mesh, axes: Sequence[str]) -> list[Any]:
    """Return the devices that the first one shares these axes with, itself among them."""
    return list(mesh.devices[tuple(slice(None) if axis in axes else 0 for axis in mesh.axis_names)].flat)


def egress(group: Sequence[Any], chip: Chip, shape: Sequence[int]) -> float:
    """Bytes/s that a device can send to the others of its group, on slices of these sides.

    One link each way along every side of the slice that they spread over; both ways at once where they fill a side that
    closes into a ring. What stays on a chip goes by its memory.
    """
    rings = chip.rings(tuple(shape))
    rate = 0.0
    for dimension, side in enumerate(shape):
        spread = len({device.coords[dimension] for device in group})
        if spread > 1:
            rate += chip.link * (2 if spread == side and rings[dimension] else 1)
    return rate / chip.cores or chip.bandwidth / chip.cores


def sampling_lines(told: Mapping[str, Any]) -> list[str]:
    """Say a plan of sampling for a person."""
    rows = [f"  a batch of {told['batch_size']}: {fit(told)}"]
    if told["step_seconds"] is not None:
        rows.append(
            f"  at best {told['step_seconds']:.3f} s a batch, {told['images_per_second']:,.1f} samples/s, "
            f"bound by {told['roofline']['bound']}"
        )
    return rows


def lines(told: Mapping[str, Any]) -> list[str]:
    """Say a plan for a person."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in told["mesh"].items() if size > 1) or "one device"
    rows = [
        f"{told['chips']} x {told['chip']} ({told['topology']}): {mesh}",
        f"batch of {told['batch_size']}, {told['parameters']:,} parameters",
        f"memory: {fit(told)}",
        *(f"  {kind:<12} {size / 1e9:9.3f} GB" for kind, size in told["bytes_per_chip"].items() if size),
        f"compute: {told['flops_per_chip_per_step'] / 1e9:,.1f} GFLOP a chip and step",
    ]
    sent = told["collective_bytes"]
    if sent is not None:
        rows += [f"sent: {sent['total'] / 1e9:.3f} GB a device and step"]
        rows += [f"  {kind:<20} {size / 1e9:9.3f} GB" for kind, size in sent["by_kind"].items()]
        rows += [f"  along {axis:<14} {size / 1e9:9.3f} GB" for axis, size in sent["by_axis"].items()]
    if told["fits"] is False:
        return rows
    if told["step_seconds"] is None:
        fake = "no time: fake devices have no speed; nor is their memory a chip's"
        return [*rows, "no time: what slices send each other is not counted" if told["slices"] > 1 else fake]
    roof = told["roofline"]
    return [
        *rows,
        f"at best (a roofline: all overlaps, nothing waits): bound by {roof['bound']}",
        *(f"  {part:<12} {roof[part] * 1e3:9.2f} ms" for part in ("compute", "memory", "interconnect")),
        *([] if roof["thorough"] else ["  (memory at most: a long program, optimized at level O1; see --thorough)"]),
        f"  step {told['step_seconds'] * 1e3:.2f} ms, {told['images_per_second']:,.0f} images/s, MFU {told['mfu']:.0%}",
        f"  {told['steps']:,} steps: {told['hours']:,.1f} hours, {told['chip_hours']:,.0f} chip-hours",
    ]


def fit(told: Mapping[str, Any]) -> str:
    """Say whether it fits."""
    needed, memory = told["bytes_per_chip"]["total"] / 1e9, told["hbm_bytes"]
    if memory is None:
        return f"{needed:.2f} GB a fake device"
    if told["fits"]:
        return f"fits: {needed:.2f} of {memory / 1e9:.2f} GB a chip"
    return f"does not fit: needs {needed:.2f} of {memory / 1e9:.2f} GB a chip"
