"""What was read, in words: how many examples of which classes, of what size, from where, and what is odd about them."""

import numpy as np

from jaxgen.data.layout import few
from jaxgen.data.source import COUNTED, Examples, described, name_of

NAMED = 4  # class names that one line shows
MEND = 'split="train" and split="test" of one folder, of the same share and seed, have nothing in common'


def lines(train: Examples, test: Examples, element: dict[str, tuple[tuple[int, ...], np.dtype]]) -> list[str]:
    """Return one line on the data that a run opened, then a line for each thing to know about them.

    `element` is the shape and type of each array that one training example gives to a batch.
    """
    told = [described(examples) for examples in (train, test)]
    places = dict.fromkeys(origin for origin, _ in told if origin)
    source = f", from {' and '.join(places)}" if places else ""
    first = (
        f"data: {len(train):,} training and {len(test):,} test examples{_classes(train.classes)}, "
        f"{size(element['image'][0])}{source}"
    )
    told.append(("", _common(train, test)))
    return [first, *dict.fromkeys(f"note: {note}" for _, notes in told for note in notes)]


def _common(train: Examples, test: Examples) -> tuple[str, ...]:
    """Say which test examples are training examples too, by the names of their files."""
    known = set(_files(train))
    if not (same := [name for name in _files(test) if name in known]):
        return ()
    names = few(same, 2)
    return (f"{len(same):,} of {len(test):,} test examples are training examples too ({names}): {MEND}",)


def _files(examples: Examples) -> list[str]:
    """Return the examples' names; none where they are only counted."""
    if name_of(examples, 0) == COUNTED.format(0):
        return []
    return [name_of(examples, i) for i in range(len(examples))]


def _classes(classes: tuple[str, ...]) -> str:
    if not classes:
        return ""
    return f" of {len(classes)} class{'es' if len(classes) > 1 else ''} ({few(classes, NAMED)})"


def size(shape: tuple[int, ...]) -> str:
    """Return "64x64x3" for an image of that shape."""
    return f"points in {shape[0]} dimensions" if len(shape) == 1 else "x".join(map(str, shape))
