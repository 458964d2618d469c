"""A report as one file: it asks nothing of any other, and a policy in it lets no script run but its own."""

import importlib.resources
import pathlib
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from jaxgen.report import compare, curves, markup, previews, sections
from jaxgen.report.markup import element
from jaxgen.report.record import Record


def of_run(record: Record) -> str:
    """Write the report of one run."""
    parts = [
        sections.header(record),
        sections.headline(record),
        sections.charts(curves.of_run(record)),
        previews.section(record.previews),
        sections.results(record),
        sections.speed(record),
        sections.parameters(record),
        sections.notes(record),
        sections.origin(record),
    ]
    return page(f"{markup.short(record.name)} – jaxgen", parts)


def of_runs(records: Sequence[Record], names: Sequence[str]) -> str:
    """Write a comparison of runs."""
    return page(f"{len(records)} runs – jaxgen", compare.parts(records, names))


def page(title: str, parts: Sequence[ET.Element | None]) -> str:
    """Lay parts out on a page with all that it needs."""
    licence = _asset("uPlot.LICENSE")  # which asks to be in every copy
    scripts = [f"/*\n{licence}*/\n{_asset('uPlot.iife.min.js')}", _asset("report.js")]
    style = f"{_asset('uPlot.min.css')}\n{_asset('report.css')}"
    allowed = " ".join(map(markup.digest, scripts))
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    head = element(
        "head", {}, element("meta", {"charset": "utf-8"}),
        element("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        element("meta", {"name": "color-scheme", "content": "light dark"}),
        element("title", {}, title), element("style", {}, style),
    )  # fmt: skip
    body = element("body", {}, element("main", {}, *parts), *(element("script", {}, script) for script in scripts))
    tree = element("html", {"lang": "en"}, head, body)
    return f"<!doctype html>\n{ET.tostring(tree, encoding='unicode', method='html')}\n"


def write(path: pathlib.Path, text: str) -> None:
    """Write a page, whole or not at all.

    Raises OSError where that cannot be.
    """
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(path)


def _asset(name: str) -> str:
    return importlib.resources.files("jaxgen.report").joinpath("assets", name).read_text(encoding="utf-8")
