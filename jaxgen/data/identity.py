"""Whether data that are opened are still those that a run learned from: its classes, its arrays, its examples."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.data.batches import DataSpec
from jaxgen.data.source import Examples, Source
from jaxgen.data.tokenizers import digest_of_words
from jaxgen.errors import UserError

OTHER_WORDS = (
    "the captions' words are others than when the run was trained, so that token ids would mean something else\n"
    "give the captions back, or install the versions of packages that experiment.txt in the run folder names"
)
SHOWN = 3  # differences that one line names

Element = Mapping[str, tuple[tuple[int, ...], np.dtype]]


def check_classes(run: Sequence[str], data: Sequence[str], names: tuple[str, str] = ("the run", "the data")) -> None:
    """Raise UserError, naming the differences, unless the two have the same classes in the same order."""
    if tuple(run) == tuple(data):
        return
    one, other = names
    pairs = list(zip(run, data, strict=False))
    differ = [f"class {i} is {a!r} in {one} and {b!r} in {other}" for i, (a, b) in enumerate(pairs) if a != b]
    if len(run) != len(data):
        longer, where = (run, one) if len(run) > len(data) else (data, other)
        extra = ", ".join(repr(name) for name in longer[len(pairs) :][:SHOWN])
        differ.append(f"{one} has {len(run)} classes and {other} {len(data)}: only {where} has {extra}")
    more = f"; and {len(differ) - SHOWN} more" if len(differ) > SHOWN else ""
    raise UserError(
        f"{'; '.join(differ[:SHOWN])}{more}\n"
        "labels would mean something else: give the classes (or their folders) their names and order back"
    )


def check_same(run: DataSpec, data: DataSpec) -> None:
    """Raise UserError unless the data have the run's classes, and their arrays its shapes and types."""
    check_classes(run.classes, data.classes)
    for name in {**run.element, **data.element}:
        before, after = run.element.get(name), data.element.get(name)
        if before != after:
            raise UserError(
                f"an example's {name} is {_text(before)} in the run and {_text(after)} in the data; "
                "give the data their old form back, or train in a new run folder"
            )
    if run.words and data.words and run.words != data.words:
        raise UserError(OTHER_WORDS)


def check_words(run: DataSpec, transforms: Sequence[Any]) -> None:
    """Raise UserError where token ids stand for other words than when the run was trained."""
    if run.words and run.words != digest_of_words(transforms):
        raise UserError(OTHER_WORDS)


def check_channels(run: DataSpec, element: Element) -> None:
    """Raise UserError unless images, of whatever size, are of the run's channels and type."""
    (before, kind), (after, found) = run.element["image"], element["image"]
    if (len(before), before[-1], kind) != (len(after), after[-1], found):
        raise UserError(f"an image is {_text((before, kind))} in the run and {_text((after, found))} in the data")


def count_notes(run: DataSpec, *, training: int | None = None, test: int | None = None) -> list[str]:
    """Say where there are more or fewer examples than the run knows of."""
    now = {"training": training, "test": test}
    return [
        f"note: {after:,} {name} examples, where the run had {before:,}"
        for (name, after), before in zip(now.items(), run.counts or (), strict=False)
        if after not in (None, before)
    ]


def opened(run: DataSpec, source: Source) -> Examples:
    """Open a source.

    Raises UserError unless its classes are the run's.
    """
    examples = source.open()
    check_classes(run.classes, examples.classes)
    return examples


def _text(array: tuple[tuple[int, ...], np.dtype] | None) -> str:
    if array is None:
        return "not there"
    shape, dtype = array
    return f"{dtype} {'x'.join(map(str, shape)) or 'number'}"
