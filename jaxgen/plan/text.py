"""Plans as lines, a table and a chart for a person."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def lines(report: Mapping[str, Any]) -> list[str]:
    """Return a plan for a person."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in report["mesh"].items() if size > 1) or "one device"
    rows = [
        f"{report['chips']} x {report['chip']} ({report['topology']}): {mesh}",
        f"batch of {report['batch_size']}, {report['parameters']:,} parameters",
        f"memory: {fit(report)}",
        *(f"  {kind:<12} {size / 1e9:9.3f} GB" for kind, size in report["bytes_per_chip"].items() if size),
        f"compute: {report['flops_per_chip_per_step'] / 1e9:,.1f} GFLOP a chip and step",
    ]
    sent = report["collective_bytes"]
    if sent is not None:
        rows += [f"sent: {sent['total'] / 1e9:.3f} GB a device and step"]
        rows += [f"  {kind:<20} {size / 1e9:9.3f} GB" for kind, size in sent["by_kind"].items()]
        rows += [f"  along {axis:<14} {size / 1e9:9.3f} GB" for axis, size in sent["by_axis"].items()]
    rows += _warnings(report)
    if report["fits"] is False:
        return rows
    if report["step_seconds"] is None:
        fake = "no time: fake devices have no speed, and their memory is not a chip's"
        return [*rows, "no time: what slices send to each other is not counted" if report["slices"] > 1 else fake]
    roof = report["roofline"]
    return [
        *rows,
        f"at best (a roofline: all overlaps, nothing waits): bound by {roof['bound']}",
        *(f"  {part:<12} {roof[part] * 1e3:9.2f} ms" for part in ("compute", "memory", "interconnect")),
        *([] if roof["thorough"] else ["  (memory at most: a long program, optimized at level O1; see --thorough)"]),
        f"  step {report['step_seconds'] * 1e3:.2f} ms, {report['images_per_second']:,.0f} images/s, "
        f"MFU {report['mfu']:.0%}",
        f"  {report['steps']:,} steps: {report['hours']:,.1f} hours, {report['chip_hours']:,.0f} chip-hours",
    ]


def sampling_lines(report: Mapping[str, Any]) -> list[str]:
    """Return a plan of sampling for a person."""
    rows = [f"  a batch of {report['batch_size']}: {fit(report)}"]
    if report["step_seconds"] is not None:
        rows.append(
            f"  at best {report['step_seconds']:.3f} s a batch, {report['images_per_second']:,.1f} samples/s, "
            f"bound by {report['roofline']['bound']}"
        )
    return rows + [f"  {line}" for line in _warnings(report)]


def fit(report: Mapping[str, Any]) -> str:
    """Return whether a plan fits the memory, in words."""
    needed, memory = report["bytes_per_chip"]["total"] / 1e9, report["hbm_bytes"]
    if memory is None:
        return f"{needed:.2f} GB a fake device"
    if report["fits"]:
        return f"fits: {needed:.2f} of {memory / 1e9:.2f} GB a chip"
    return f"does not fit: needs {needed:.2f} of {memory / 1e9:.2f} GB a chip"


def _warnings(*reports: Mapping[str, Any]) -> list[str]:
    loops = max((report.get("unknown_loops") or 0 for report in reports), default=0)
    if not loops:
        return []
    several = f"{loops} loops of unknown length are" if loops > 1 else "a loop of unknown length is"
    return [f"warning: {several} counted once: FLOPs, bytes and times are too low"]


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return plans side by side, a row for each."""
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
    return lines + _warnings(*rows)


def _memory(row: Mapping[str, Any]) -> str:
    return f"{row['bytes_per_chip']['total'] / 1e9:>11.2f}"


def draw(rows: Sequence[dict[str, Any]], title: str) -> Any:
    """Draw what bounds the step on each topology, and the images per second that it leaves: a matplotlib figure."""
    import matplotlib.figure  # takes half a second, and a plan without a chart need not wait

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
