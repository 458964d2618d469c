"""Curves of scalars over steps: thinned, and drawn as SVG, in whose place the page's script puts what can be zoomed."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as ET

from jaxgen.report import markup
from jaxgen.report.markup import element
from jaxgen.report.record import FLOOR, Record, number

POINTS = 20_000  # of all curves of a page: about half a megabyte
FEWEST, MOST = 40, 600  # points of one curve
COLOURS = 8  # that the style sheet has; further curves are dashed
WIDTH, HEIGHT = 480, 250  # of a drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 10, 42  # margins, with the labels of the axes
SPEED = ("images_per_second", "data_wait")
UNITS = {"images_per_second": "images/s", "data_wait": "share of the time"}


@dataclasses.dataclass(frozen=True)
class Series:
    """One curve; None where a value was not finite."""

    label: str
    x: tuple[int, ...]
    y: tuple[float | None, ...]
    colour: int = 0
    """Its place in the palette: a run has the same colour in every chart."""


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves over one another."""

    title: str
    unit: str
    series: tuple[Series, ...]


def of_run(record: Record) -> list[Chart]:
    """Return a chart for each scalar of a run: its training and its test, losses first, speed last."""
    train, test = _columns(record, "train"), _columns(record, "test")
    charts = []
    for name in _ordered({**train, **test}):
        series = [s for s in (train.get(name), test.get(name)) if s]
        if max(len(s.x) for s in series) > 1:  # a single point is no curve
            charts.append(Chart(name, UNITS.get(name, name), tuple(series)))
    return charts


def of_runs(records: Sequence[Record], labels: Sequence[str]) -> list[Chart]:
    """Return a chart for each scalar of several runs, with a curve for each run."""
    charts = []
    for split in ("train", "test"):
        columns = [_columns(record, split) for record in records]
        for name in _ordered({name: None for found in columns for name in found}):
            series = tuple(
                dataclasses.replace(found[name], label=label, colour=i)
                for i, (label, found) in enumerate(zip(labels, columns, strict=True))
                if name in found
            )
            if max(len(s.x) for s in series) > 1:
                charts.append(Chart(f"{name} ({split})", UNITS.get(name, name), series))
    return charts


def _columns(record: Record, split: str) -> dict[str, Series]:
    """Return every scalar of a split as a curve; of two rows of one step the later one counts."""
    found: dict[str, dict[int, float | None]] = {}
    for row in record.split(split):
        for name, value in row.items():
            y = number(value)
            if (y is not None or value is None) and name not in ("step", "split") and not name.endswith(FLOOR):
                found.setdefault(name, {})[row["step"]] = y
    return {
        name: Series(split, tuple(points), tuple(points.values()), int(split == "test"))
        for name, points in found.items()
        if any(y is not None for y in points.values())
    }  # fmt: skip


def _ordered(names: dict[str, object]) -> list[str]:
    return sorted(names, key=lambda name: (name in SPEED, name != "loss", "loss" not in name))


def thinned(series: Series, most: int) -> Series:
    """Keep so many points at the most: of each stretch the lowest and the highest, so that no spike is lost."""
    count = len(series.x)
    if count <= most:
        return series
    stretches = max(most // 2, 1)
    kept: set[int] = set()
    for i in range(stretches):
        places = range(i * count // stretches, (i + 1) * count // stretches)
        finite = [(y, place) for place in places if (y := series.y[place]) is not None]
        kept |= {min(finite)[1], max(finite)[1]} if finite else {places[0]}
    order = sorted(kept)
    return dataclasses.replace(series, x=tuple(series.x[i] for i in order), y=tuple(series.y[i] for i in order))


def figures(charts: Sequence[Chart], points: int = POINTS) -> list[ET.Element]:
    """Draw charts, each with its numbers for the page's script; together they have so many points at the most."""
    most = min(max(points // max(sum(len(chart.series) for chart in charts), 1), FEWEST), MOST)
    return [_figure(Chart(c.title, c.unit, tuple(thinned(s, most) for s in c.series))) for c in charts]


def _figure(chart: Chart) -> ET.Element:
    shown = [markup.short(series.label) for series in chart.series]
    numbers = {
        "unit": chart.unit,
        "series": [
            {
                "label": label,
                "colour": series.colour,
                "x": series.x,
                "y": [None if y is None else float(f"{y:.6g}") for y in series.y],
            }
            for label, series in zip(shown, chart.series, strict=True)
        ],
    }
    keys = [
        element("li", {}, element("span", {"class": f"key s{series.colour % COLOURS}"}), f" {label}")
        for label, series in zip(shown, chart.series, strict=True)
    ]
    plot = element("div", {"class": "plot"}, _drawing(chart), element("ul", {"class": "legend"}, *keys))
    title = markup.short(chart.title)
    return element("figure", {"class": "chart"}, element("figcaption", {}, title), plot, markup.data("curve", numbers))


def _drawing(chart: Chart) -> ET.Element:
    """Draw a chart as SVG with labelled axes."""
    xs = [x for series in chart.series for x in series.x]
    ys = [y for series in chart.series for y in series.y if y is not None]
    x_ticks, y_ticks = ticks(float(min(xs)), float(max(xs)), 5), ticks(min(ys), max(ys), 5)
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1)
    low_y, high_y = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def at(x: int | float, y: int | float) -> tuple[float, float]:
        right = (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        up = (y - low_y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)
        return round(LEFT + right, 1), round(HEIGHT - BOTTOM - up, 1)

    parts = []
    for y in y_ticks:
        _, down = at(low_x, y)
        parts.append(element("path", {"class": "grid", "d": f"M{LEFT} {down}H{WIDTH - RIGHT}"}))
        parts.append(_label(LEFT - 6, down + 4, f"{y:.6g}", "end"))
    for x in x_ticks:
        across, _ = at(x, low_y)
        if low_x <= x <= high_x:
            parts.append(_label(across, HEIGHT - BOTTOM + 16, f"{x:,.0f}", "middle"))
    parts.append(_label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "step", "middle"))
    unit = _label(0, 0, chart.unit if len(chart.unit) < 32 else f"{chart.unit[:31]}…", "middle")
    unit.set("transform", f"translate(12 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)")
    for series in chart.series:
        parts += _line(series, at)
    name = ", ".join(markup.short(series.label) for series in chart.series)
    described = f"{markup.short(chart.title)} over steps {low_x:,} to {max(xs):,}: {name}"
    frame = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": described}
    return element("svg", frame, *parts, unit)


def _line(series: Series, at: Callable[[float, float], tuple[float, float]]) -> list[ET.Element]:
    """Draw a curve, broken where values are missing, and a dot for a point that stands alone."""
    words, dots, pen = [], [], "M"
    colour = f"s{series.colour % COLOURS}"
    for place, (x, y) in enumerate(zip(series.x, series.y, strict=True)):
        if y is None:
            pen = "M"
            continue
        across, down = at(x, y)
        after = series.y[place + 1] if place + 1 < len(series.y) else None
        if pen == "M" and after is None:
            dots.append(element("circle", {"class": f"dot {colour}", "cx": str(across), "cy": str(down), "r": "3"}))
        words.append(f"{pen}{across:g} {down:g}")
        pen = "L"
    dashes = {"stroke-dasharray": "6 3"} if series.colour >= COLOURS else {}
    return [element("path", {"class": f"line {colour}", "d": "".join(words), **dashes}), *dots]


def _label(x: int | float, y: int | float, text: str, anchor: str) -> ET.Element:
    return element("text", {"x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}, text)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers from at most `low` to at least `high`, about so many and two at least."""
    reach = max(abs(low), abs(high))
    if high - low <= max(1e-9 * reach, 1e-300):  # a curve that is level
        low, high = low - (0.5 * reach or 0.5), high + (0.5 * reach or 0.5)
    rough = high / about - low / about  # the difference itself may be more than a float holds
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 5) if factor * power >= rough), 10 * power)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, last + 1)]
