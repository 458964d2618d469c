"""Block diagrams: rows of blocks and images, drawn from left to right."""

import dataclasses
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Polygon
from matplotlib.path import Path

from jaxgen.pictures.blocks import Block, blocks
from jaxgen.pictures.sheet import to_rgb

__all__ = ["Block", "Drawing", "Shown", "blocks", "draw"]

PAPER, INK, GREY, LINES = "#ffffff", "#222222", "#666666", "#868c94"
PLAIN = {"input": "#b9bec6", "parameter": "#d9d4c7"}
FIXED = {"Conv": "#5b8fc7", "Dense": "#e0915a"}  # in every diagram; other kinds take the next of FILLS
FILLS = ("#69ad78", "#b57bb5", "#d3b04c", "#5fb3b3", "#c9706f", "#8d8fc9", "#9aa657", "#b08968")
SLOT, TALL, WIDE = 0.86, 0.75, 0.45  # inches: from block to block at least, and the largest height and width of one
HEAD, ARCS, LINE, LEGEND = (
    0.34,
    0.28,
    0.15,
    0.3,
)  # inches: a title, the lines above blocks, a line of text, of the legend
SMALL = 0.12  # share of the largest height or width that the smallest has
OBLIQUE = 0.28  # how far a block's depth goes to the right and up, in units of its height
LETTER, LONG = 0.068, 12  # inches that a letter below a block takes, and letters of a name that is not broken


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image in a row of blocks."""

    image: np.ndarray
    """f32[h w c] in [-1, 1], or bytes."""
    caption: str
    sources: tuple[int, ...] = (1,)
    """How many places back those lie that it is made from."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.image.shape


class Drawing(Figure):
    """A figure that notebooks show, also where pyplot has drawn nothing yet."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


Row = Sequence[Block | Shown]


def draw(rows: Mapping[str, Row]) -> Drawing:
    """Draw a row of blocks, from left to right, below each title: a matplotlib figure, on white.

    A block's height is the logarithm of its output's rows and columns, its width that of the channels, on one scale
    for all rows. Below it are its name, its output and its parameters. An arrow comes from the block before, a line
    from one further back, unless that gives a vector and this one a map.
    """
    found = [item for row in rows.values() for item in row if isinstance(item, Block)]
    kinds = dict.fromkeys(block.kind for block in found if block.kind not in PLAIN)
    others = [kind for kind in kinds if kind not in FIXED]
    fills = FIXED | {kind: FILLS[i % len(FILLS)] for i, kind in enumerate(others)} | PLAIN
    sizes = _Sizes(max(map(_side, found), default=1.0), max(map(_channels, found), default=1))
    texts = [_texts(item) for row in rows.values() for item in row]
    slot = max(SLOT, 0.1 + LETTER * max((len(text) for lines in texts for text in lines), default=0))
    width = slot * max(map(len, rows.values())) + 0.2
    foot = 0.14 + LINE * max(map(len, texts), default=0)
    heads = [HEAD + ARCS * any(_arcs(row)) for row in rows.values()]
    places = _places(list(kinds), width)
    height = sum(heads) + len(rows) * (TALL + foot) + LEGEND * (1 + max((line for _, line in places), default=-1))
    figure = Drawing(figsize=(width, height), dpi=110, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    top = height
    for head, (title, row) in zip(heads, rows.items(), strict=True):
        axes.text(0.1, top - 0.06, title, va="top", color=INK, fontsize=10, fontweight="bold")
        _draw_row(axes, row, slot, top - head - TALL / 2, sizes, fills)
        top -= head + TALL + foot
    for kind, (x, line) in zip(kinds, places, strict=True):
        y = top - LEGEND * (line + 0.5)
        _fill(axes, [(x, y - 0.06), (x + 0.16, y - 0.06), (x + 0.16, y + 0.06), (x, y + 0.06)], fills[kind])
        axes.text(x + 0.23, y, kind, va="center", color=INK, fontsize=8)
    axes.set(xlim=(0, width), ylim=(0, height))  # last, as images change them
    return figure


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """What is drawn largest."""

    side: float
    channels: int

    def of(self, block: Block) -> tuple[float, float]:
        """Return a block's width and height in inches, its depth included in neither."""
        height = TALL / (1 + OBLIQUE) * _share(_side(block), self.side)
        return WIDE * _share(float(_channels(block)), float(self.channels)), height


def _share(value: float, most: float) -> float:
    return SMALL + (1 - SMALL) * math.log2(value) / max(math.log2(most), 1.0)


def _side(block: Block) -> float:
    """Rows and columns, as the side of a square."""
    return math.sqrt(math.prod(block.shape[:-1]))


def _channels(block: Block) -> int:
    return block.shape[-1] if block.shape else 1


def _texts(item: Block | Shown) -> list[str]:
    """Return the lines below an item."""
    if isinstance(item, Shown):
        return item.caption.splitlines()
    name = item.name.split("/")[-1]
    if len(name) > LONG and "_" in name:
        cut = min((i for i, letter in enumerate(name) if letter == "_"), key=lambda i: abs(i + 1 - len(name) / 2)) + 1
        names = [name[:cut], name[cut:]]
    else:
        names = [name]
    return [*names, "×".join(map(str, item.shape)) or "1", *_count(item.parameters)]


def _count(number: int) -> list[str]:
    """Write a number of parameters in three digits, and nothing for none."""
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return [f"{number / unit:.3g}{name} params"]
    return [f"{number} params"] if number else []


def _arcs(row: Row) -> Iterator[tuple[int, int]]:
    """Yield (place, how far back) of what is joined by a line above the blocks."""
    for j, item in enumerate(row):
        for back in item.sources:
            if 1 < back <= j and (len(row[j - back].shape) > 1 or len(item.shape) < 2):
                yield j, back


def _draw_row(axes: Any, row: Row, slot: float, middle: float, sizes: _Sizes, fills: Mapping[str, str]) -> None:
    """Draw the items of a row, what is written below them, and what joins them."""
    extents: list[tuple[float, float, float]] = []  # left, right and top of each
    for j, item in enumerate(row):
        x = 0.1 + slot * (j + 0.5)
        if isinstance(item, Block):
            extents.append(_draw_block(axes, (x, middle), sizes.of(item), fills[item.kind]))
        else:
            extent = (x - TALL / 2, x + TALL / 2, middle - TALL / 2, middle + TALL / 2)
            axes.imshow(to_rgb(np.asarray(item.image)), extent=extent, interpolation="nearest", aspect="equal")
            extents.append((*extent[:2], extent[3]))
        for number, text in enumerate(_texts(item)):
            colour, y = GREY if number else INK, middle - TALL / 2 - 0.06 - LINE * number
            axes.text(x, y, text, ha="center", va="top", fontsize=7, color=colour)
        if j and 1 in item.sources:
            _arrow(axes, [(extents[j - 1][1] + 0.03, middle), (extents[j][0] - 0.03, middle)])
    arcs = list(_arcs(row))
    for j, back in arcs:
        (left, right, top), (to_left, to_right, to_top) = extents[j - back], extents[j]
        # Lines leave to the right of the middle and arrive to the left of it, so that they stay apart.
        a, b = (left + right) / 2 + 0.05, (to_left + to_right) / 2 - 0.05
        y = middle + TALL / 2 + 0.08 + (ARCS - 0.02) * back / max(back for _, back in arcs)
        _arrow(axes, [(a, top + 0.02), (a, y), (b, y), (b, to_top + 0.02)])


def _draw_block(
    axes: Any, centre: tuple[float, float], size: tuple[float, float], fill: str
) -> tuple[float, float, float]:
    """Draw a box seen from the front, the left and above, and return its left, right and top."""
    (x, y), (w, h) = centre, size
    d = OBLIQUE * h
    left, low = x - (w + d) / 2, y - (h + d) / 2
    right, high = left + w, low + h
    _fill(axes, [(left, low), (right, low), (right, high), (left, high)], fill)
    _fill(axes, [(left, high), (right, high), (right + d, high + d), (left + d, high + d)], _mixed(fill, 255, 0.35))
    _fill(axes, [(right, low), (right + d, low + d), (right + d, high + d), (right, high)], _mixed(fill, 0, 0.22))
    return left, right + d, high + d


def _mixed(colour: str, grey: int, share: float) -> str:
    """Mix a colour with a grey."""
    channels = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round((1 - share) * c + share * grey):02x}" for c in channels)


def _fill(axes: Any, corners: list[tuple[float, float]], fill: str) -> None:
    axes.add_patch(Polygon(corners, facecolor=fill, edgecolor=PAPER, linewidth=0.6, joinstyle="round"))


def _arrow(axes: Any, points: list[tuple[float, float]]) -> None:
    """Draw a line through points, with a head at its end."""
    style = "-|>,head_length=3,head_width=1.6"
    patch = FancyArrowPatch(path=Path(points), arrowstyle=style, color=LINES, linewidth=0.9, joinstyle="round")
    axes.add_patch(patch)


def _places(kinds: list[str], width: float) -> list[tuple[float, int]]:
    """Return the left edge and the line of each entry of the legend."""
    places, x, line = [], 0.1, 0
    for kind in kinds:
        wide = 0.23 + 0.082 * len(kind) + 0.2
        if x + wide > width and x > 0.1:
            x, line = 0.1, line + 1
        places.append((x, line))
        x += wide
    return places
