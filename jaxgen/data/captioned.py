"""Folders of images with captions: a text file beside each image, or one file for all."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.data import layout
from jaxgen.data.decode import read_image
from jaxgen.data.fake import FakeCaptions
from jaxgen.data.files import SUFFIXES, below, composed, directory
from jaxgen.data.source import Examples, Shape, Source, checked
from jaxgen.data.split import Side, on_side
from jaxgen.errors import UserError
from jaxgen.typing import Example

TABLE = "metadata.jsonl"  # at the top of the folder, as Hugging Face's imagefolder has it


@dataclasses.dataclass(frozen=True)
class Captioned:
    """Images anywhere below a folder, each with a text: `image` u8[h w c] and `caption` str[].

    Either each image has a text file of the same name beside it, `cat.png` and `cat.txt`, or the folder holds
    `metadata.jsonl` with a line for each image: {"file_name": "cat.png", "text": "a cat"}. Raises UserError when
    opened if an image or a caption is missing, when read if an image is unreadable.
    """

    path: str
    channels: int = 3
    text: str = "text"
    """The name of the caption in `metadata.jsonl`."""
    split: Side | None = None
    """A side of this one folder, "train" or "test", which each file's name decides; None for all of it."""
    share: float = 0.9
    """Share of the files on the training side, about."""
    seed: int = 0
    """Another seed splits otherwise; both sides need the same."""

    def open(self) -> Examples:
        files, captions, notes = self._found()
        origin = f"{self.path} ({self.split} split)" if self.split else self.path
        return checked(_Pictures(files, captions, self.channels, origin, notes), where=lambda i: str(files[i]))

    def captions(self) -> tuple[str, ...]:
        """Return the caption of each example, for a vocabulary of words."""
        return tuple(self._found()[1])

    def shape(self) -> Shape | None:
        return None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeCaptions.of(shape, 0, count)

    def _found(self) -> tuple[list[Path], list[str], tuple[str, ...]]:
        """The images of this side, the caption of each, and what to know about them."""
        root = directory(self.path)
        everything = sorted(below(root))
        images = [file for file in everything if file.suffix.lower() in SUFFIXES]
        if not images:
            raise layout.no_images(root, everything, classes=False)
        notes = layout.unread(root, everything)
        if (root / TABLE).is_file():
            pairs, more = _listed(root, images, self.text)
            notes += more
        else:
            pairs = _beside(root, images, [file for file in everything if file.suffix.lower() == ".txt"])
        if empty := [str(file) for file, caption in pairs if not caption]:
            notes += (f"{layout.counted(len(empty), 'caption')} of {root} empty: {layout.few(empty)}",)
        names = [file.relative_to(root).as_posix() for file, _ in pairs]
        kept = [pairs[i] for i in on_side(names, self.split, self.share, self.seed)]
        return [file for file, _ in kept], [caption for _, caption in kept], notes


def _beside(root: Path, images: Sequence[Path], texts: Sequence[Path]) -> list[tuple[Path, str]]:
    """The text in the file beside each image."""
    named = {composed(str(file.with_suffix(""))): file for file in texts}
    if not named:
        raise UserError(f"{root} holds no captions: put a .txt beside each image, or a {TABLE} into it")
    of = {file: named.get(composed(str(file.with_suffix("")))) for file in images}
    if missing := [str(file) for file, text in of.items() if text is None]:
        raise UserError(
            f"{len(missing)} of {layout.counted(len(images), 'image')} have no .txt of the same name beside them: "
            f"{layout.few(missing)}"
        )
    return [(file, _tidy(_read(text))) for file, text in of.items() if text is not None]


def _listed(root: Path, images: Sequence[Path], key: str) -> tuple[list[tuple[Path, str]], tuple[str, ...]]:
    """The images that the table names, in the images' order, each with its text; and which are not named."""
    table = root / TABLE
    by_name = {composed(file.relative_to(root).as_posix()): file for file in images}
    found: dict[Path, str] = {}
    for number, line in enumerate(_read(table).splitlines(), start=1):
        if not line.strip():
            continue
        name, caption = _row(line, key, f"{table}, line {number}")
        file = by_name.get(composed(name.removeprefix("./")))
        if file is None:
            raise UserError(f"{table}, line {number}: no image {root / name}")
        if file in found:
            raise UserError(f"{table}, line {number}: {name} is named a second time; give each image one line")
        found[file] = _tidy(caption)
    if not found:
        raise UserError(f"{table} names no image")
    left = [str(file) for file in images if file not in found]
    notes = (f"{layout.counted(len(left), 'image')} not in {table}, left out: {layout.few(left)}",) if left else ()
    return [(file, found[file]) for file in images if file in found], notes


def _row(line: str, key: str, where: str) -> tuple[str, str]:
    try:
        row: Any = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: no JSON ({error}); each line is one object") from error
    for name in ("file_name", key):
        if not isinstance(row, dict) or not isinstance(row.get(name), str):
            has = f"; it has {', '.join(map(str, row))}" if isinstance(row, dict) and row else ""
            raise UserError(f"{where}: no text {name!r}{has}")
    return row["file_name"], row[key]


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file} ({error}); save it as UTF-8") from error


def _tidy(text: str) -> str:
    """One line, with one space between words."""
    return " ".join(text.split())


class _Pictures:
    classes: tuple[str, ...] = ()

    def __init__(self, files: list[Path], captions: list[str], channels: int, origin: str, notes: tuple[str, ...]):
        self.origin, self.notes = origin, notes
        self._files, self._captions, self._channels = files, captions, channels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Example:
        file = self._files[index]
        return {"image": read_image(file, self._channels, str(file)), "caption": np.array(self._captions[index])}
