"""Plans side by side: the largest batch that fits, what makes a larger one fit, and how a run scales."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxgen.data.batches import DataSpec
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Fsdp, Replicated
from jaxgen.plan.planner import dividing, plan, smallest_batch
from jaxgen.plan.roofline import with_remat
from jaxgen.plan.topologies import Topology

FINE = 1 / 8  # a batch is searched for to within this share of itself
MOST = 1 << 20  # examples per device at which the search ends


def search(experiment: Experiment, data: DataSpec, where: Topology, say: Callable[[str], None]) -> dict[str, Any]:
    """Find the largest batch that fits, to within an eighth, and which remat or rule would fit twice as large a one.

    Raises UserError for fake devices, whose memory is unknown.
    """
    if where.chip is None:
        raise UserError("--search needs a chip's memory, and fake devices have none; name a TPU's topology")
    unit = smallest_batch(experiment, where)
    tried: dict[int, bool] = {}

    def fits(size: int) -> bool:
        if size not in tried:
            report = plan(dataclasses.replace(experiment, batch_size=size), data, where)
            tried[size] = report["fits"]
            say(f"batch {size}: " + ("fits" if report["fits"] else "does not fit"))
        return tried[size]

    low, high = 0, max(unit, experiment.batch_size // unit * unit)
    while fits(high) and high < MOST * where.chips:
        low, high = high, 2 * high
    while high - low > max(unit, round(low * FINE)):  # both are multiples of the unit
        middle = (low + high) // 2 // unit * unit
        low, high = (middle, high) if fits(middle) else (low, middle)
    larger = 2 * max(low, unit)
    fits_with: dict[str, bool] = {}
    for name, other in _others(experiment):
        report = plan(dataclasses.replace(other, batch_size=larger), data, where)
        fits_with[name] = report["fits"]
        say(f"batch {larger} with {name}: " + ("fits" if report["fits"] else "does not fit"))
    return {"largest_batch": low, "larger": {"batch_size": larger, "fits_with": fits_with}, "tried": tried}


def _others(experiment: Experiment) -> Iterator[tuple[str, Experiment]]:
    """Yield the experiment with less memory for activations at a time, or for state, and what it was changed by."""
    recomputed = with_remat(experiment, remat=True)
    sharded = dataclasses.replace(experiment, rule=Fsdp(), mesh=MeshShape(replica=1, fsdp=-1))
    replicated = isinstance(experiment.rule, Replicated)
    if recomputed != experiment:
        yield "remat", recomputed
    if replicated:
        yield "Fsdp()", sharded
    if recomputed != experiment and replicated:
        yield "remat and Fsdp()", with_remat(sharded, remat=True)
    objective: Any = experiment.objective  # a dataclass, which its Protocol does not say
    parts = 2 * objective.microbatches
    yield (
        f"--objective.microbatches {parts}",
        dataclasses.replace(experiment, objective=dataclasses.replace(objective, microbatches=parts)),
    )


def scale(
    experiment: Experiment, data: DataSpec, places: Sequence[Topology], per_chip: int | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Plan the run on each topology: with the config's batch on all of them, or with `per_chip` examples a chip.

    Efficiency is the images per second and FLOP/s of peak, over that of the first topology where it fits.
    """
    rows: list[dict[str, Any]] = []
    for where in places:
        sized = dataclasses.replace(experiment, batch_size=per_chip * where.chips) if per_chip else experiment
        try:
            report = plan(dividing(sized, where)[0], data, where)
        except UserError as error:  # what does not divide on one topology may on the next
            size = sized.batch_size
            rows.append({"topology": where.name, "chips": where.chips, "batch_size": size, "error": str(error)})
            say(f"{where.name}: {error}")
            continue
        rows.append(report)
        say(f"{where.name}: done")
    first = next((row["mfu"] for row in rows if row.get("mfu")), None)
    for row in rows:
        row["efficiency"] = row["mfu"] / first if row.get("mfu") and first else None
    return rows
