"""The parts of one run's report."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from jaxgen.report import curves, markup
from jaxgen.report.markup import element
from jaxgen.report.record import FLOOR, Record, number

ROWS, NOTES = 400, 200  # most rows of a table, most notes
FIRST = 4  # charts that are shown; the others are opened by a click
KINDS = {"params": "weights", "stats": "statistics", "opt": "optimizer", "ema": "EMA"}  # of a net's state
# What the seconds of a "time" row went into, in the order in which they are shown.
SPENT = {
    "compile": "compiling", "data_wait": "waiting for data", "step_seconds": "training steps", "preview": "previews",
    "evaluation": "evaluation", "checkpoint": "checkpoints",
}  # fmt: skip
STATUS = {"finished": "finished", "running": "running", "stopped": "not finished"}


def header(record: Record) -> ET.Element:
    """Say which run this is, of what, and how far it is."""
    words = f"step {record.step:,} of {record.steps:,}"
    badge = element("span", {"class": f"badge {record.status}"}, STATUS[record.status])
    return element(
        "header", {}, element("p", {"class": "over"}, "jaxgen run"), element("h1", {}, markup.short(record.name)),
        element("p", {"class": "state"}, badge, f" {words}"),
        element("p", {"class": "summary"}, markup.short(record.summary)) if record.summary else None,
    )  # fmt: skip


def headline(record: Record) -> ET.Element | None:
    """Show what matters most of the results, beside its baseline and what the config promises; None without results."""
    if not record.headline:
        return None
    cards = []
    for name in record.headline:
        value = element("span", {"class": "value"}, markup.figure(record.numbers[name]))
        base = record.numbers.get(f"{name}{FLOOR}")
        below = element("span", {"class": "base"}, f"baseline {markup.figure(base)}") if base is not None else None
        cards.append(
            element("div", {"class": "figure"}, element("span", {"class": "name"}, markup.short(name)), value, below)
        )
    promise = element("p", {"class": "promise"}, element("b", {}, "The config promises: "), record.promise)
    return markup.section(
        f"Result at step {record.results_step:,}", element("div", {"class": "figures"}, *cards),
        promise if record.promise else None,
    )  # fmt: skip


def charts(drawn: Sequence[curves.Chart]) -> ET.Element | None:
    """Draw charts, of which the first ones are in sight and the others a click away; None without any."""
    figures = curves.figures(drawn)
    if not figures:
        return None
    hint = element("p", {"class": "hint scripted"}, "Drag over a curve to zoom in; double-click to see all of it.")
    more = figures[FIRST:]
    names = markup.short(", ".join(chart.title for chart in drawn[FIRST:]))
    rest = markup.folded(f"{len(more)} more: {names}", element("div", {"class": "charts"}, *more))
    first = element("div", {"class": "charts"}, *figures[:FIRST])
    return markup.section("Curves", hint, first, rest if more else None)


def results(record: Record) -> ET.Element | None:
    """List every number of the results, with baselines beside them, and each class's."""
    numbers = record.numbers
    names = [name for name in numbers if not (name.endswith(FLOOR) and name.removesuffix(FLOOR) in numbers)]
    based = any(f"{name}{FLOOR}" in numbers for name in names)
    rows = []
    for name in names[:ROWS]:
        base = numbers.get(f"{name}{FLOOR}")
        baseline = [markup.figure(base) if base is not None else ""] if based else []
        rows.append([markup.short(name), markup.figure(numbers[name]), *baseline])
    if not rows:
        return None
    head = ["metric", "value", *(["baseline"] if based else [])]
    return markup.section("Test results", markup.table(head, rows), _per_class(record.results.get("per_class")))


def _per_class(found: Any) -> ET.Element | None:
    """Make a table of what each class scored: a row for each class, a bar for each share."""
    classes = [(n, row) for n, row in found.items() if isinstance(row, dict)] if isinstance(found, dict) else []
    if not classes:
        return None
    columns = list(dict.fromkeys(name for _, row in classes for name in row))[:8]
    rows = [[markup.short(name), *(_share(row.get(column)) for column in columns)] for name, row in classes[:ROWS]]
    left = len(classes) - ROWS
    more = element("p", {"class": "hint"}, f"and {left:,} more classes, in eval.json") if left > 0 else None
    short = [markup.short(column) for column in columns]
    return element("div", {}, element("h3", {}, "By class"), markup.table(["class", *short], rows), more)


def _share(value: Any) -> ET.Element | str:
    """Write a number; one between 0 and 1 has a bar of its length below it."""
    x = number(value)
    if not isinstance(value, float) or x is None or not 0 <= x <= 1:
        return markup.figure(x)
    style = {"class": "bar", "style": f"--share:{x:.4f}"}
    return element("span", style, f"{x:.3f}")


def speed(record: Record) -> ET.Element | None:
    """Say how fast it was, where the time went, and how much memory it took."""
    rates = [x for row in record.split("train") if (x := number(row.get("images_per_second"))) is not None]
    facts = []
    if rates:
        facts.append(("images/s", markup.figure(sorted(rates)[len(rates) // 2]), "median of the lines of metrics"))
    for key, name in (("device_peak_bytes", "memory of a device"), ("host_peak_bytes", "memory of the process")):
        peaks = [x for row in record.notes if (x := number(row.get(key))) is not None]
        if peaks:
            facts.append((name, markup.in_bytes(max(peaks)), "at its peak"))
    spent = _spent(record)
    if not facts and not spent:
        return None
    cards = [
        element(
            "div", {"class": "figure"}, element("span", {"class": "name"}, name),
            element("span", {"class": "value"}, value), element("span", {"class": "base"}, how),
        )
        for name, value, how in facts
    ]  # fmt: skip
    return markup.section("Speed and memory", element("div", {"class": "figures"}, *cards), *_bar(spent))


def _spent(record: Record) -> dict[str, float]:
    """Add up the seconds of every process that has trained here."""
    total: dict[str, float] = {}
    for row in record.split("time"):
        for name in [*SPENT, *(name for name in row if name not in SPENT)]:
            seconds = number(row.get(name))
            if name not in ("step", "split") and seconds is not None and seconds > 0:
                total[name] = total.get(name, 0.0) + seconds
    return total


def _bar(spent: Mapping[str, float]) -> list[ET.Element]:
    """Draw where the time went as one bar, with a table."""
    whole = sum(spent.values())
    if not whole:
        return []
    parts, rows = [], []
    for i, (name, seconds) in enumerate(spent.items()):
        colour, share = f"s{i % curves.COLOURS}", seconds / whole
        words = f"{SPENT.get(name, markup.short(name))}"
        parts.append(element("span", {"class": colour, "style": f"flex-grow:{share:.5f}", "title": words}))
        key = element("span", {}, element("span", {"class": f"key {colour}"}), f" {words}")
        rows.append([key, markup.in_time(seconds), f"{share:.1%}"])
    rows.append(["all", markup.in_time(whole), ""])
    bar = element("div", {"class": "stack", "role": "img", "aria-label": "shares of the time, as in the table"}, *parts)
    return [element("h3", {}, "Where the time went"), bar, markup.table(["", "time", "share"], rows)]


def parameters(record: Record) -> ET.Element | None:
    """Say how many parameters each net has, what a device holds of it, and how each array is split."""
    if not record.sharding:
        return None
    nets: dict[str, dict[str, int]] = {}
    counts: dict[str, int] = {}
    split: dict[str, int] = {}
    for path, what, spec, held in record.sharding:
        parts = path.split("/")
        net, kind = (parts[1], KINDS.get(parts[2], "other")) if parts[0] == "nets" and len(parts) > 3 else ("", "other")
        nets.setdefault(net, {}).setdefault(kind, 0)
        nets[net][kind] += held
        split[net] = split.get(net, 0) + (spec != "whole")
        if kind == "weights":
            counts[net] = counts.get(net, 0) + _size(what)
    kinds = [kind for kind in (*KINDS.values(), "other") if any(kind in held for held in nets.values())]
    rows = []
    for net, held in sorted(nets.items(), key=lambda item: item[0] == ""):
        sizes = [markup.in_bytes(held[kind]) if kind in held else "" for kind in kinds]
        count = f"{counts.get(net, 0):,}" if net else ""
        rows.append([markup.short(net or "outside the nets"), count, *sizes, f"{split[net]:,}"])
    total = sum(held for *_, held in record.sharding)
    mesh = {name.removeprefix("mesh."): x for name, x in record.settings.items() if name.startswith("mesh.")}
    said = (
        f"A device holds {markup.in_bytes(total)} of the training state. Rule: {record.settings.get('rule', '–')}; "
        + ("mesh: " + ", ".join(f"{name} {x}" for name, x in mesh.items()) + ".")
    )
    arrays = [[a, what, spec, markup.in_bytes(held)] for a, what, spec, held in record.sharding if "/params/" in a]
    of = f"the first {ROWS} of {len(arrays):,}" if len(arrays) > ROWS else f"{len(arrays):,}"
    listed = markup.table(["array", "type and shape", "split over", "on a device"], arrays[:ROWS], texts=3)
    return markup.section(
        "Parameters and sharding", markup.table(["net", "parameters", *kinds, "arrays split"], rows),
        element("p", {"class": "hint"}, markup.short(said)), markup.folded(f"Arrays of weights: {of}", listed),
    )  # fmt: skip


def _size(what: str) -> int:
    """Return the number of elements of "float32 3×3×64"."""
    shape = what.rpartition(" ")[2]
    return math.prod(map(int, shape.split("×"))) if re.fullmatch(r"\d{1,12}(×\d{1,12})*", shape) else 0


def notes(record: Record) -> ET.Element | None:
    """List what the run said: warnings first, each line once."""
    lines: dict[str, int] = {}
    for row in record.notes:
        if isinstance(text := row.get("text"), str):
            lines.setdefault(text, row["step"])
    ordered = sorted(lines.items(), key=lambda item: not item[0].startswith("warning"))
    items = [
        element(
            "li", {"class": "warning"} if text.startswith("warning") else {}, markup.short(text),
            element("span", {"class": "when"}, f" step {step:,}") if step else None,
        )
        for text, step in ordered[:NOTES]
    ]  # fmt: skip
    return markup.section("Notes and warnings", element("ul", {"class": "notes"}, *items)) if items else None


def origin(record: Record) -> ET.Element:
    """Say what was run: command, commit, versions, and the whole experiment."""
    first = {name: record.about[name] for name in ("command", "commit", "devices") if name in record.about}
    modules = {
        name.split(".")[1]: x for name, x in record.settings.items() if re.fullmatch(r"objective\.\w+\.module", name)
    }
    kinds = {
        "objective": record.settings.get("objective"),
        "nets": ", ".join(f"{name}: {x}" for name, x in modules.items()),
        "data": record.settings.get("train.source"),
        "steps × batch": f"{record.settings.get('steps', '–')} × {record.settings.get('batch_size', '–')}",
        "seed": record.settings.get("seed"),
    }  # fmt: skip
    versions = {name: x for name, x in record.about.items() if name not in first}
    rows = [(name, x) for name, x in {**kinds, **first}.items() if x]
    facts = [part for name, x in rows for part in (element("dt", {}, name), element("dd", {}, markup.short(x)))]
    listed = ", ".join(f"{name} {x}" for name, x in versions.items())
    facts += [element("dt", {}, "versions"), element("dd", {}, markup.short(listed))] if listed else []
    text = record.text[:100_000]
    whole = markup.folded("The whole experiment", element("pre", {"tabindex": "0"}, text)) if text else None
    return markup.section("What was run", element("dl", {}, *facts), whole)
