"""Elements of a page as a tree; every text in it is escaped where the standard library writes it, and nowhere else."""

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

Child = ET.Element | str | None

UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]")
LONGEST = 400  # characters of a name or a line that a page shows


def element(tag: str, attributes: Mapping[str, str], *children: Child) -> ET.Element:
    """Make an element; texts among its children stand between them, None is left out."""
    made = ET.Element(tag, {name: _clean(value) for name, value in attributes.items()})
    for child in children:
        if isinstance(child, ET.Element):
            made.append(child)
        elif child is not None:
            if len(made):
                made[-1].tail = (made[-1].tail or "") + _clean(child)
            else:
                made.text = (made.text or "") + _clean(child)
    return made


def _clean(text: str) -> str:
    """Replace what no page may hold: control characters, and halves of characters."""
    return UNSEEN.sub("\ufffd", text)


def short(text: str) -> str:
    """Cut what is too long to be shown."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def section(title: str, *children: Child) -> ET.Element:
    """Make a part of the page with a heading."""
    return element("section", {"class": "card"}, element("h2", {}, title), *children)


def table(head: Sequence[str], rows: Sequence[Sequence[Child]], *, texts: int = 1) -> ET.Element:
    """Make a table that scrolls by itself; columns after the first `texts` hold numbers, aligned to the right."""

    def line(tag: str, cells: Sequence[Child]) -> ET.Element:
        classes = [{} if i < texts else {"class": "number"} for i in range(len(cells))]
        return element(
            "tr", {}, *(element(tag, {**kind}, cell) for kind, cell in zip(classes, cells, strict=True))
        )  # fmt: skip

    body = element("tbody", {}, *(line("td", row) for row in rows))
    inner = element("table", {}, element("thead", {}, line("th", head)), body)
    # What scrolls must be reached by the keyboard, too.
    return element("div", {"class": "scroll", "tabindex": "0"}, inner)


def folded(title: str, *children: Child) -> ET.Element:
    """Make a part that is opened by a click."""
    return element("details", {}, element("summary", {}, title), *children)


def data(name: str, value: Any) -> ET.Element:
    """Hold JSON for the page's script; nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return element("script", {"type": "application/json", "class": name}, text)


def digest(script: str) -> str:
    """Return what a content security policy calls a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def figure(value: float | None) -> str:
    """Write a number for a person: four digits, thousands parted."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def in_bytes(count: int | float) -> str:
    """Write a number of bytes: "1.50 GB"."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return f"{count:.0f} bytes"


def in_time(seconds: float) -> str:
    """Write a time: "3 h 05 min", "4 min 10 s", "8.2 s"."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
