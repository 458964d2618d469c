"""Several runs beside each other: their curves, their results, and the fields in which they differ."""

import os
import pathlib
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from jaxgen.errors import UserError
from jaxgen.report import curves, markup, previews, sections
from jaxgen.report.markup import element
from jaxgen.report.record import Record

FIELDS = 30  # that differ and are in sight
NOTHING = "(nothing)"  # a field that another run's experiment does not have


def labels(folders: Sequence[pathlib.Path]) -> list[str]:
    """Name runs by the ends of their paths, as long as it takes to tell them apart.

    Raises UserError if a run is named twice.
    """
    paths = [pathlib.Path(os.path.realpath(folder)) for folder in folders]
    for i, path in enumerate(paths):
        if path in paths[:i]:
            raise UserError(f"{folders[i]} is named twice; a run is compared with others")
    for length in range(1, max(len(path.parts) for path in paths) + 1):
        names = ["/".join(path.parts[-length:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def parts(records: Sequence[Record], names: Sequence[str]) -> list[ET.Element | None]:
    """Return the parts of a comparison."""
    return [
        _header(names),
        _runs(records, names),
        sections.charts(curves.of_runs(records, names)),
        _results(records, names),
        _previews(records, names),
        _differences(records, names),
    ]


def _header(names: Sequence[str]) -> ET.Element:
    title = element("h1", {}, f"{len(names)} runs compared")
    return element("header", {}, element("p", {"class": "over"}, "jaxgen runs"), title)


def _runs(records: Sequence[Record], names: Sequence[str]) -> ET.Element:
    rows = []
    for i, (record, name) in enumerate(zip(records, names, strict=True)):
        key = element("span", {}, element("span", {"class": f"key s{i % curves.COLOURS}"}), f" {markup.short(name)}")
        kind = record.settings.get("objective", "–")
        rows.append([key, kind, sections.STATUS[record.status], f"{record.step:,} of {record.steps:,}"])
    return markup.section("Runs", markup.table(["run", "objective", "state", "steps"], rows, texts=3))


def _results(records: Sequence[Record], names: Sequence[str]) -> ET.Element | None:
    """Put the newest results side by side, those that matter most first."""
    first = [name for record in records for name in record.headline]
    metrics = list(dict.fromkeys([*first, *(name for record in records for name in record.numbers)]))[: sections.ROWS]
    if not metrics:
        return None
    rows = [
        [markup.short(metric), *(markup.figure(r.numbers[metric]) if metric in r.numbers else "" for r in records)]
        for metric in metrics
    ]
    rows.insert(0, ["at step", *(f"{r.results_step:,}" if r.numbers else "" for r in records)])
    return markup.section("Test results", markup.table(["metric", *map(markup.short, names)], rows))


def _previews(records: Sequence[Record], names: Sequence[str]) -> ET.Element | None:
    """Show the last previews of each run."""
    last = {
        f"{name}: {kind}": pictures[-1:]
        for record, name in zip(records, names, strict=True)
        for kind, pictures in record.previews.items()
    }
    return previews.section(last)


def _differences(records: Sequence[Record], names: Sequence[str]) -> ET.Element:
    """List the experiments' fields that are not the same in all runs."""
    fields = dict.fromkeys(name for record in records for name in record.settings)
    rows = []
    for field in fields:
        values = [record.settings.get(field, NOTHING) for record in records]
        if len(set(values)) > 1:
            rows.append([markup.short(field), *map(markup.short, values)])
    if not rows:
        return markup.section("Fields that differ", element("p", {}, "None: these are runs of one experiment."))
    head = ["field", *map(markup.short, names)]
    more = rows[FIELDS : sections.ROWS]
    rest = markup.folded(f"{len(rows) - FIELDS} more", markup.table(head, more, texts=len(head))) if more else None
    return markup.section("Fields that differ", markup.table(head, rows[:FIELDS], texts=len(head)), rest)
