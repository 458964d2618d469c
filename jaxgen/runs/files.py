"""The names of the files in a run folder, and how its JSON is read and written."""

import dataclasses
import json
import pathlib
import re
from typing import Any

from jaxgen.errors import UserError

NUMBER = re.compile("0|[1-9][0-9]*")  # as checkpoints are named


@dataclasses.dataclass(frozen=True)
class RunFiles:
    """Names of the files in a run folder."""

    path: pathlib.Path

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def snapshots(self) -> pathlib.Path:
        return self.path / "snapshots"

    @property
    def previews(self) -> pathlib.Path:
        return self.path / "previews"

    @property
    def metrics(self) -> pathlib.Path:
        return self.path / "metrics.jsonl"

    @property
    def eval(self) -> pathlib.Path:
        return self.path / "eval.json"

    @property
    def text(self) -> pathlib.Path:
        return self.path / "experiment.txt"

    @property
    def notes(self) -> pathlib.Path:
        return self.path / "notes.jsonl"

    @property
    def report(self) -> pathlib.Path:
        return self.path / "report.html"

    @property
    def sharding(self) -> pathlib.Path:
        return self.path / "sharding.txt"

    @property
    def json(self) -> pathlib.Path:
        return self.path / "experiment.json"

    @property
    def json_of_data(self) -> pathlib.Path:
        return self.path / "data.json"

    @property
    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint or a snapshot, whole or damaged."""
        places = (self.checkpoints, self.snapshots, self.path / "damaged")
        entries = [entry for place in places if place.is_dir() for entry in place.iterdir()]
        return sorted({int(entry.name) for entry in entries if NUMBER.fullmatch(entry.name) and entry.is_dir()})


def read_json(path: pathlib.Path) -> Any:
    """Return what a JSON file holds.

    Raises UserError where it is not there or not whole.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # not there, not text, not JSON, or nested without end
        raise UserError(f"cannot read {path}: {error}") from error


def write_json(path: pathlib.Path, data: Any) -> None:
    """Write a JSON file, whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(data, indent=1) + "\n")
    fresh.replace(path)
