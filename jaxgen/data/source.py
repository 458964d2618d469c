"""What a data set is: examples by index, whose ids are mapped and checked before they are trained on."""

from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example

FOREIGN = -1  # what a lookup maps raw ids to that are no class's
RAW = 65_536  # raw ids that a lookup can map: those of 16 bits
SAMPLE = 64  # examples that are read when a source is opened
COUNTED = "example {}"  # what an example is called that has no file
LIMIT_BYTES = 2 << 30  # a data set that takes less than this is kept in memory once it is decoded

Shape = tuple[int, ...]  # of an image as the data set has it: (height, width, channels), or (2,) of points


@runtime_checkable
class Examples(Protocol):
    """Examples that can be read in any order, from several threads at once.

    An example holds `image` u8[h w c]; `label` i32[] or `mask` u8[h w], whose ids are positions in `classes` or
    255 = ignore; and, where the data have them, `target` u8[h w c] (what the image is to become), `boxes` f32[k 4]
    (x0 y0 x1 y1, edges, in pixels), `labels` i32[k] (one id for each box) and `caption` str[]. Its arrays are never
    written to.
    """

    classes: tuple[str, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@runtime_checkable
class Described(Protocol):
    """Examples that say where they were read from, and what a person should know about it."""

    origin: str
    """A folder, or a data set's name; "" where there is nothing to say."""
    notes: tuple[str, ...]
    """Lines that are said once, when a run starts."""


@runtime_checkable
class Named(Protocol):
    """Examples that have names, such as those of their files."""

    def name(self, index: int) -> str:
        """Return what an error calls this example."""
        ...


@runtime_checkable
class Table(Protocol):
    """Examples that lie in arrays, so that many are read as quickly as one."""

    def take(self, indices: Int[np.ndarray, " n"]) -> Example:
        """Return these examples, each array with a first axis of n."""
        ...


@runtime_checkable
class Positioned(Protocol):
    """Examples whose training order is their own: each is a function of the seed and its place in the training."""

    def at(self, seed: int, position: int) -> Example:
        """Return the example at this place of the endless training sequence, prepared, but for the transforms."""
        ...


@runtime_checkable
class Portrayed(Protocol):
    """A source whose examples are no pictures: it says how they are drawn, and what files are made of one.

    Samples of a run on such data are shown and written in the same way.
    """

    def shows(self, shape: tuple[int, ...]) -> bool:
        """Say whether an array of this shape (h, w, c) can be drawn as an example; not only of the data's own size."""
        ...

    def picture(self, images: Float[np.ndarray, "n h w c"]) -> UInt8[np.ndarray, "n i j 3"]:
        """Draw each example."""
        ...

    def writers(self) -> Mapping[str, Callable[[Float[np.ndarray, "h w c"]], bytes]]:
        """Return what makes the bytes of a file of one example, by the file's suffix.

        Raises UserError where a package that this needs is not installed.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """A data set as an experiment names it: a frozen dataclass that can be opened.

    Opening raises UserError where the data and the source do not fit, DataNotFound where the data are not here.
    """

    def open(self) -> Examples: ...


@runtime_checkable
class Fakeable(Protocol):
    """A source that can be replaced by fake data of the same shapes where its own is not here."""

    def shape(self) -> Shape | None:
        """Return the images' shape, or None where it differs between images or is not known without the data."""
        ...

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        """Return a source without files, of `count` examples with the same arrays and 1 or more classes."""
        ...


def portrayed(source: Source, shape: tuple[int, ...]) -> Portrayed | None:
    """Return the source where it draws arrays of this shape (h, w, c) itself; None where they are pictures."""
    return source if isinstance(source, Portrayed) and source.shows(shape) else None


def remap(ids: Mapping[int, int]) -> tuple[int, ...]:
    """Return the lookup that maps these raw ids and leaves the others as they are: remap({255: 1}).

    Those above 255 that are not named stay foreign: they are -1 in the lookup. Raises UserError for raw ids outside
    0..65535, and for ids outside 0..255.
    """
    if wrong := [raw for raw in ids if not 0 <= raw < RAW]:
        raise UserError(f"remap: raw id {wrong[0]}; a lookup maps 0..{RAW - 1}, so save the masks with other ids")
    if wrong := [mapped for mapped in ids.values() if not 0 <= mapped <= IGNORE]:
        raise UserError(f"remap: {wrong[0]} is no id; ids are the classes' positions, or {IGNORE} (ignore)")
    table = list(range(256)) + [FOREIGN] * (max(ids, default=0) - 255)
    for raw, mapped in ids.items():
        table[raw] = mapped
    return tuple(table)


def check_names(classes: object) -> None:
    """Raise UserError for one string in the place of a tuple of classes, which would be read letter by letter."""
    if isinstance(classes, str):
        raise UserError(f"classes is a string; write ({classes!r},)")


def check_labels(ids: Integer[np.ndarray, " n"], classes: tuple[str, ...], where: str = "labels") -> None:
    """Raise UserError if an id is neither 0..C-1 nor 255 (ignore); the message lists the ids found."""
    ids = np.unique(ids)
    if np.any((ids < 0) | (ids >= len(classes)) & (ids != IGNORE)):
        mend = "pass a `lookup` that maps raw id -> id"
        if outside := [i for i in ids.tolist() if not 0 <= i < RAW]:
            mend = f"save the masks with another id in place of {outside[0]}, which no `lookup` can map"
        raise UserError(
            f"{where}: found ids {_listed(ids)}; expected 0..{len(classes) - 1} or {IGNORE} (ignore). "
            f"Correct `classes` ({len(classes)} given), or {mend}."
        )


def checked(
    examples: Examples,
    lookup: tuple[int, ...] = (),
    where: Callable[[int], str] = COUNTED.format,
    limit_bytes: int = LIMIT_BYTES,
) -> Examples:
    """Return the examples with their masks mapped and their ids checked, kept in memory if they fit.

    An evenly spread sample is checked at once, every example when it is read. `where(i)` names example i in an error.
    Raises UserError for ids that are no class, for masks of more than 255 classes, and for masks that hold nothing but
    0 and 255.
    """
    if not len(examples):
        raise UserError("the data set holds no examples")
    examples = _Checked(examples, _table(lookup), where)
    sample = np.unique(np.linspace(0, len(examples) - 1, SAMPLE).astype(int))
    found = np.zeros(256, bool)
    size = 0
    for i in sample.tolist():
        example = examples[i]
        size += sum(array.nbytes for array in example.values())
        if "mask" in example:
            found |= _present(example["mask"])
    ids = np.flatnonzero(found)
    if found[IGNORE] and len(ids) <= 2 and len(examples.classes) > 1 and not found[1:IGNORE].any():
        raise UserError(
            f"masks: found ids {_listed(ids)}, and 255 means ignore: nothing is left to learn. "
            f"If 255 is {examples.classes[1]!r}, pass lookup=remap({{255: 1}})."
        )
    fits = size / len(sample) * len(examples) <= limit_bytes
    return _Kept(examples) if fits else examples


def described(examples: Examples) -> tuple[str, tuple[str, ...]]:
    """Return where examples were read from, and what to know about them: nothing where they do not say."""
    return (examples.origin, examples.notes) if isinstance(examples, Described) else ("", ())


def name_of(examples: Examples, index: int) -> str:
    """Return what an error calls an example: its file, where it has one."""
    return examples.name(index) if isinstance(examples, Named) else COUNTED.format(index)


class _Checked:
    """Examples whose masks pass through a lookup and whose ids are checked as they are read."""

    def __init__(self, examples: Examples, table: Integer[np.ndarray, " n"] | None, where: Callable[[int], str]):
        self.classes = examples.classes
        self.origin, self.notes = described(examples)
        self._examples, self._table, self._where = examples, table, where

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example = dict(self._examples[index])
        if "mask" in example:
            check_mask_classes(len(self.classes))
            example["mask"] = self._ids(example["mask"], index)
        if "label" in example and not 0 <= example["label"] < len(self.classes):
            raise UserError(f"{self._where(index)}: label {example['label']}; expected 0..{len(self.classes) - 1}")
        for array in example.values():
            array.flags.writeable = False
        return example

    def name(self, index: int) -> str:
        return self._where(index)

    def _ids(self, mask: Integer[np.ndarray, "h w"], index: int) -> UInt8[np.ndarray, "h w"]:
        raw = mask
        if self._table is not None and (raw.dtype == np.uint8 or 0 <= raw.min() <= raw.max() < len(self._table)):
            mask = self._table[raw]
        foreign = (mask >= len(self.classes)) & (mask != IGNORE)
        if mask.dtype != np.uint8:
            foreign |= mask < 0
        if foreign.any():
            # What a lookup marks as foreign has lost its raw id.
            check_labels(np.where(mask == FOREIGN, raw, mask).ravel().astype(int), self.classes, self._where(index))
        return mask.astype(np.uint8, copy=False)


class _Kept:
    """Examples that are decoded once, when they are first asked for, and kept."""

    def __init__(self, examples: Examples):
        self.classes = examples.classes
        self.origin, self.notes = described(examples)
        self._examples = examples
        self._kept: list[Example | None] = [None] * len(examples)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        example = self._kept[index]
        if example is None:
            example = self._kept[index] = self._examples[index]
        return example

    def name(self, index: int) -> str:
        return name_of(self._examples, index)

    def __reduce__(self) -> tuple[type, tuple[Examples]]:
        return _Kept, (self._examples,)  # a worker process keeps its own: images are not sent with the pickle


def check_mask_classes(classes: int) -> None:
    """Raise UserError for more classes than a mask has ids for."""
    if classes > IGNORE:
        raise UserError(
            f"masks: {classes} classes, and a mask holds the ids 0..{IGNORE - 1} and {IGNORE} (ignore); name at most "
            f"{IGNORE} classes, and merge the others by a `lookup`"
        )


def _table(lookup: tuple[int, ...]) -> Integer[np.ndarray, " n"] | None:
    """A lookup as an array; ids beyond its end stay as they are, so that 255 is 255 unless it is mapped."""
    if not lookup:
        return None
    if not all((FOREIGN if raw > IGNORE else 0) <= mapped <= IGNORE for raw, mapped in enumerate(lookup)):
        raise UserError(f"lookup: ids must lie in 0..{IGNORE}, found {min(lookup)}..{max(lookup)}")
    return np.array(lookup + tuple(range(len(lookup), 256)), np.int16 if FOREIGN in lookup else np.uint8)


def _present(mask: UInt8[np.ndarray, "h w"]) -> Bool[np.ndarray, "256"]:
    return np.bincount(mask.ravel(), minlength=256) > 0


def _listed(ids: Integer[np.ndarray, " n"]) -> str:
    shown = ", ".join(str(i) for i in ids[:20])
    return f"{{{shown}{', …' if len(ids) > 20 else ''}}}"
