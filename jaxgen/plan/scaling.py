"""Plans side by side: the largest batch that fits, what would fit a larger one, and how a run scales."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Fsdp, Replicated
from jaxgen.plan.planner import dividing, plan, smallest_batch, with_remat
from jaxgen.plan.topologies import Topology
from jaxgen.runs.folder import Data

FINE = 1 / 8  # a batch is searched for to within this share of itself
MOST = 1 << 20  # examples a device, where no one would look further


def search(experiment: Experiment, data: Data, where: Topology, say: Callable[[str], None]) -> dict[str, Any]:
    """Find the largest batch that fits, to within an eighth, and which remat or rule would fit twice as large a one.

    Raises UserError on a topology whose memory nobody knows.
    """
    if where.chip is None:
        raise UserError("--search wants a chip's memory, which fake devices have none of; name a TPU's topology")
    unit = smallest_batch(experiment, where)
    tried: dict[int, bool] = {}

    def fits(size: int) -> bool:
        if size not in tried:
            told = plan(dataclasses.replace(experiment, batch_size=size), data, where)
            tried[size] = told["fits"]
            say(f"batch {size}: " + ("fits" if told["fits"] else "does not fit"))
        return tried[size]

    low, high = 0, max(unit, experiment.batch_size // unit * unit)
    while fits(high) and high < MOST * where.chips:
        low, high = high, 2 * high
    while high - low > max(unit, round(low * FINE)):  # both are multiples of the unit
        middle = (low + high) // 2 // unit * unit
        low, high = (middle, high) if fits(middle) else (low, middle)
    larger = 2 * max(low, unit)
    found: dict[str, bool] = {}
    for name, other in _others(experiment):
        told = plan(dataclasses.replace(other, batch_size=larger), data, where)
        found[name] = told["fits"]
        say(f"batch {larger} with {name}: " + ("fits" if told["fits"] else "does not fit"))
    return {"largest_batch": low, "larger": {"batch_size": larger, "fits_with": found}, "tried": tried}


def _others(experiment: Experiment) -> Iterator[tuple[str, Experiment]]:
    """The same experiment with less memory spent on activations at a time, or on state."""
    spared = with_remat(experiment, remat=True)
    split = dataclasses.replace(experiment, rule=Fsdp(), mesh=MeshShape(replica=1, fsdp=-1))
    replicated = isinstance(experiment.rule, Replicated)
    if spared != experiment:
        yield "remat", spared
    if replicated:
        yield "Fsdp()", split
    if spared != experiment and replicated:
        yield "remat and Fsdp()", with_remat(split, remat=True)
    objective: Any = experiment.objective
    parts = 2 * objective.microbatches
    yield (
        f"--objective.microbatches {parts}",
        dataclasses.replace(experiment, objective=dataclasses.replace(objective, microbatches=parts)),
    )


def scale(
    experiment: Experiment, data: Data, places: Sequence[Topology], per_chip: int | None, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Plan the run on each topology: with the config's batch on all of them, or with `per_chip` examples a chip.

    Efficiency is the images per second and FLOP/s of peak, over that of the first topology where it fits.
    """
    rows: list[dict[str, Any]] = []
    for where in places:
        sized = dataclasses.replace(experiment, batch_size=per_chip * where.chips) if per_chip else experiment
        try:
            told = plan(dividing(sized, where)[0], data, where)
        except UserError as error:  # what does not divide on one topology may on the next
            size = sized.batch_size
            rows.append({"topology": where.name, "chips": where.chips, "batch_size": size, "error": str(error)})
            say(f"{where.name}: {error}")
            continue
        rows.append(told)
        say(f"{where.name}: done")
    first = next((row["mfu"] for row in rows if row.get("mfu")), None)
    for row in rows:
        row["efficiency"] = row["mfu"] / first if row.get("mfu") and first else None
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Say it for a person."""
    lines = ["topology      chips   batch   GB a chip  bound by        step ms    images/s    MFU  efficiency"]
    for row in rows:
        head = f"{row['topology']:<12} {row['chips']:>6} {row['batch_size']:>7}"
        if "error" in row:
            lines.append(f"{head}   {row['error'].splitlines()[0]}")
        elif row["step_seconds"] is None:
            lines.append(f"{head} {_memory(row)}  " + ("does not fit" if row["fits"] is False else "unknown"))
        else:
            lines.append(
                f"{head} {_memory(row)}  {row['roofline']['bound']:<13}{row['step_seconds'] * 1e3:>10.2f}"
                f" {row['images_per_second']:>11,.0f} {row['mfu']:>6.0%} {row['efficiency']:>11.0%}"
            )
    return lines


def _memory(row: Mapping[str, Any]) -> str:
    return f"{row['bytes_per_chip']['total'] / 1e9:>11.2f}"


def draw(rows: Sequence[dict[str, Any]], title: str) -> matplotlib.figure.Figure:
    """Draw what bounds the step on each topology, and the images per second that it leaves."""
    rows = [row for row in rows if row.get("step_seconds")]
    names = [f"{row['topology']}\n{row['batch_size']} a step" for row in rows]
    figure = matplotlib.figure.Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = np.arange(len(rows))
    for i, (part, colour) in enumerate({"compute": "#4477aa", "memory": "#ddaa33", "interconnect": "#bb5566"}.items()):
        left.bar(places + (i - 1) * 0.27, [1e3 * row["roofline"][part] for row in rows], 0.25, label=part, color=colour)
    left.set_xticks(places, names, fontsize=8)
    left.set_ylabel("ms a step, each on its own")
    left.set_title("what bounds the step: the highest bar")
    left.legend(frameon=False)
    bars = right.bar(places, [100 * row["mfu"] for row in rows], 0.6, color="#4477aa")
    speeds = [f"{row['images_per_second']:,.0f} images/s\n{row['chips']} chips" for row in rows]
    right.bar_label(bars, speeds, fontsize=8)
    right.set_xticks(places, names, fontsize=8)
    right.set_ylim(0, 100)
    right.set_ylabel("% of the chips' FLOP/s, at most (MFU)")
    right.set_title("what that leaves")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title}: a roofline, not a measurement")
    return figure
