"""Examples with arrays that were computed once and lie on disk, so that a frozen net need not run in training."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data.source import Examples, Shape, Source, described, name_of
from jaxgen.errors import DataNotFound, UserError
from jaxgen.typing import Example

INDEX = "prepared.json"  # written last: a folder without it was not finished
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The examples of a source, each with a row of every array `FOLDER/NAME.npy`, which is mapped and not read whole.

    Raises UserError when opened if the arrays were made from other examples, or are damaged; DataNotFound if they are
    not there.
    """

    source: Source
    folder: str

    def open(self) -> Examples:
        folder = Path(self.folder).expanduser()
        examples = self.source.open()
        index = _index(folder)
        _check_source(examples, index, folder)
        arrays = {name: _mapped(folder / f"{name}.npy", len(examples)) for name in index["arrays"]}
        return _Joined(examples, arrays)

    def shape(self) -> Shape | None:
        return getattr(self.source, "shape", lambda: None)()

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        """Return the source's fake data: they lack the arrays, whose shapes nothing tells where they are not here."""
        fake: Any = getattr(self.source, "fake", None)
        if fake is None:
            raise UserError(f"Prepared: there is no fake data in the place of {type(self.source).__name__}")
        return fake(shape, classes, count)


def write(examples: Examples, folder: str | Path, blocks: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Write arrays for `Prepared`: `blocks` hold the rows of the examples in their order, [k *shape] under each name.

    Integers and booleans keep their types, floats become float16. Raises UserError if the rows are not as many as the
    examples, if blocks differ in names or shapes, or if a number is not finite or too large for float16.
    """
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    files: dict[str, np.memmap] = {}
    at = 0
    for block in blocks:
        rows = {name: _stored(name, np.asarray(values)) for name, values in block.items()}
        count = len(next(iter(rows.values()))) if rows else 0
        files = files or {name: _created(folder, name, len(examples), values) for name, values in rows.items()}
        told = {name: values.shape[1:] for name, values in rows.items()}
        if told != {name: file.shape[1:] for name, file in files.items()} or {*map(len, rows.values())} - {count}:
            raise UserError(f"{folder}: the rows from {at} on have other names or shapes than those before: {told}")
        if at + count > len(examples):
            raise UserError(f"{folder}: more rows than the {len(examples):,} examples of the source")
        for name, values in rows.items():
            files[name][at : at + count] = values
        at += count
    if at < len(examples):
        raise UserError(f"{folder}: {at:,} rows for the {len(examples):,} examples of the source")
    for file in files.values():
        file.flush()
    index = {"rows": at, "fingerprint": fingerprint(examples), "arrays": sorted(files)}
    (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def fingerprint(examples: Examples) -> str:
    """Return a digest of how many examples there are, and of the first, the middle and the last."""
    digest = hashlib.blake2b(str(len(examples)).encode(), digest_size=16)
    for i in sorted({0, len(examples) // 2, len(examples) - 1}):
        for name, value in sorted(examples[i].items()):
            digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _stored(name: str, values: np.ndarray) -> np.ndarray:
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name of an array; take letters, digits and _")
    if values.dtype.kind in "bui":
        return values
    if values.size and not np.abs(values).max() <= np.finfo(np.float16).max:  # NaN too
        raise UserError(f"{name}: numbers up to {np.abs(values).max():g}, which float16 cannot hold")
    return values.astype(np.float16)


def _created(folder: Path, name: str, rows: int, like: np.ndarray) -> np.memmap:
    try:
        return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", like.dtype, (rows, *like.shape[1:]))
    except OSError as error:
        raise UserError(f"cannot write {folder / name}.npy ({error})") from error


def _index(folder: Path) -> dict[str, Any]:
    file = folder / INDEX
    if not file.is_file():
        raise DataNotFound(f"there is no {file}: the arrays were not prepared, or not to the end")
    try:
        index = json.loads(file.read_text("utf-8"))
        return {key: index[key] for key in ("rows", "fingerprint", "arrays")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {file} ({error}); prepare the arrays again") from error


def _check_source(examples: Examples, index: Mapping[str, Any], folder: Path) -> None:
    origin = described(examples)[0] or "the source"
    if index["rows"] != len(examples):
        raise UserError(
            f"{folder} was prepared from {index['rows']:,} examples, but {origin} has {len(examples):,}; "
            "prepare it again"
        )
    if index["fingerprint"] != fingerprint(examples):
        raise UserError(f"{folder} was prepared from other examples than those of {origin}; prepare it again")


def _mapped(file: Path, rows: int) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"cannot read {file} ({error}); prepare the arrays again") from error
    if array.shape[:1] != (rows,):
        raise UserError(f"{file} holds {array.shape}, but there are {rows:,} examples; prepare the arrays again")
    return array


class _Joined:
    """Each example with its row of the arrays; half-precision rows become f32."""

    def __init__(self, examples: Examples, arrays: Mapping[str, np.ndarray]):
        self.classes = examples.classes
        self.origin, self.notes = described(examples)
        self._examples, self._arrays = examples, dict(arrays)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index] | {name: _row(array, index) for name, array in self._arrays.items()}

    def name(self, index: int) -> str:
        return name_of(self._examples, index)


def _row(array: np.ndarray, index: int) -> np.ndarray:
    row = np.array(array[index])  # a copy: a batch outlives the map
    return row.astype(np.float32) if row.dtype == np.float16 else row
