"""What commands have in common: how they read a command line, and how they print."""

import argparse
import contextlib
import json
import pathlib
import sys
from collections.abc import Iterator
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
            "--allow", action="append", default=[], metavar="PACKAGE",
            help="let the run folder name classes of this package too, besides jaxgen's and your own project's",
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
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error


def check_folder(path: pathlib.Path | None) -> None:
    """Raise UserError unless a file can be put where the path says."""
    if path is not None and not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}")
