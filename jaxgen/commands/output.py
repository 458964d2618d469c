"""What commands have in common: how they read a command line, and how they print."""

import argparse
import contextlib
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from typing import Any

from jaxgen.errors import UserError


class Parser(argparse.ArgumentParser):
    """A command line; a mistake in it is an error in two lines, with exit status 2."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> Any:
        usage = " ".join(self.format_usage().split())
        raise UserError(f"{message}\n{usage}")

    def with_json(self) -> "Parser":
        self.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        return self

    def of_run(self) -> "Parser":
        self.with_json().add_argument("folder", type=pathlib.Path, metavar="RUN", help="a run folder")
        self.add_argument("--step", type=int, help="which checkpoint; the newest by default")
        return self.allowing()

    def allowing(self) -> "Parser":
        self.add_argument(
            "--allow", action="append", default=[], metavar="PACKAGE|DIR/",
            help="let the run folder name classes of this package, or of the project in this folder, too",
        )  # fmt: skip
        return self


def print_json(data: Any) -> None:
    """Print one JSON object on standard output."""
    print(json.dumps(data))


def note(line: str) -> None:
    """Say something in passing, on standard error."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Turn a file that cannot be written into a UserError."""
    try:
        yield
    except OSError as error:
        where = "" if error.filename is None else f" {error.filename}"
        raise UserError(f"cannot write{where}: {error.strerror or error}") from error


def check_file(path: pathlib.Path | None, suffixes: Collection[str]) -> None:
    """Raise UserError unless a file with one of these suffixes can be put where the path says."""
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        what = f"files that end in {path.suffix}" if path.suffix else "a file without a suffix"
        raise UserError(f"cannot write {path}: {what} cannot be written here; give it one of {', '.join(suffixes)}")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; name a file in it")
    check_folder(path)


def check_folder(path: pathlib.Path | None) -> None:
    """Raise UserError unless a file can be put where the path says."""
    if path is None:
        return
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: you may not write there; name another place")


def check_new_folder(path: pathlib.Path | None) -> None:
    """Raise UserError unless the path is an empty folder, or one that can be made; hidden files do not count."""
    if path is None:
        return
    if path.exists() and not path.is_dir():
        raise UserError(f"cannot write into {path}: it is a file; name a folder")
    if path.is_dir() and (inside := sum(not child.name.startswith(".") for child in path.iterdir())):
        raise UserError(f"cannot write into {path}: it holds {inside} files already; name a new folder, or empty it")
    check_folder_for(path)


def check_folder_for(path: pathlib.Path) -> None:
    """Raise UserError unless files can be put into this folder, or it can be made."""
    there = nearest(path)
    if not there.is_dir():
        raise UserError(f"cannot write to {shown(path)}: {shown(there)} is no folder; choose another")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {shown(path)}: Permission denied in {shown(there)}; choose another folder")


def nearest(path: pathlib.Path) -> pathlib.Path:
    """Return the path, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def shown(path: pathlib.PurePath) -> str:
    """Return a path as it can be printed, whatever bytes are in it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_space(path: pathlib.Path | None, needed: int) -> None:
    """Raise UserError unless the disk of a file, or of a folder, has so many bytes to spare."""
    if path is None:
        return
    if needed > (free := shutil.disk_usage(nearest(path)).free):
        spare = in_words(free)
        raise UserError(f"{path} would take {in_words(needed)}, and its disk has {spare} to spare; ask for fewer")


def in_words(size: int) -> str:
    """Say a number of bytes: "1.5 GB"."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        if size >= 10**power:
            return f"{size / 10**power:.1f} {unit}"
    return f"{size / 1000:.0f} kB"


def whole(text: str) -> int:
    """Read a whole number, also as people write large ones: 1e4, 10,000 or 10_000; for `Parser.add_argument`."""
    plain = text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+", text) else text
    with contextlib.suppress(ValueError):
        return int(plain)
    with contextlib.suppress(ValueError, OverflowError):
        if (number := int(float(plain))) == float(plain):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
