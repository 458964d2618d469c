"""What a run folder tells, as plain values: nothing in it is executed, and no class that it names is looked up."""

import dataclasses
import functools
import json
import pathlib
import re
import time
from collections.abc import Mapping
from typing import Any

from jaxgen.config import catalogue, codec, moved
from jaxgen.errors import UserError
from jaxgen.runs import lock
from jaxgen.runs.files import RunFiles, read_json

PREVIEW = re.compile(r"step_(\d+)_(.+)\.png")
HUGE = 1e300
FLOOR = "_floor"  # what a metric's baseline is called after it


@dataclasses.dataclass(frozen=True)
class Record:
    """One run, finished or not."""

    name: str
    files: RunFiles
    settings: Mapping[str, str]
    """The experiment's fields by their names on the command line, as JSON."""
    text: str
    """The experiment as Python writes it."""
    about: Mapping[str, str]
    """Versions, devices, commit and command."""
    summary: str
    """The first line of the config's docstring; empty where the config is not here."""
    promise: str
    """What the config says of its result; empty as above."""
    rows: tuple[Mapping[str, Any], ...]
    """Lines of metrics.jsonl, in the order of their steps."""
    results: Mapping[str, Any]
    """The newest results on the test data."""
    results_step: int
    notes: tuple[Mapping[str, Any], ...]
    """Lines of notes.jsonl."""
    previews: Mapping[str, tuple[tuple[int, pathlib.Path], ...]]
    """Pictures by their name, as (step, file)."""
    sharding: tuple[tuple[str, str, str, int], ...]
    """Each array's path, type and shape, split, and bytes on a device."""
    step: int
    """The last step of which anything is known."""
    steps: int
    """Steps of the whole training."""
    going_on: bool
    """Whether a process trains in the folder now."""

    @property
    def status(self) -> str:
        """ "finished", "running" or "stopped"."""
        if self.results_step >= self.steps and self.files.eval.exists():
            return "finished"
        return "running" if self.going_on else "stopped"

    def split(self, name: str) -> list[Mapping[str, Any]]:
        """Return the rows of "train", "test" or "time"."""
        return [row for row in self.rows if row["split"] == name]

    @functools.cached_property
    def numbers(self) -> dict[str, float | None]:
        """The results that are single numbers; None where one is not finite."""
        found = {name: (value, number(value)) for name, value in self.results.items()}
        return {name: x for name, (value, x) in found.items() if value is None or x is not None}

    @functools.cached_property
    def headline(self) -> list[str]:
        """The names of the results that matter most: those that the promise names, or else those with a baseline."""
        names = [name for name in self.numbers if not name.endswith(FLOOR)]
        # As people write them: "mIoU" is miou, "high quality" is high_quality.
        places = {
            name: found.start()
            for name in names
            if (found := re.search(rf"\b{re.escape(name).replace('_', '[ _-]')}\b", self.promise, re.IGNORECASE))
        }
        promised = sorted(places, key=lambda name: places[name])
        based = [name for name in names if f"{name}{FLOOR}" in self.numbers]
        other = [name for name in names if "loss" not in name]
        return (promised or based[:1] or other[:1] or names[:1])[:4]


def number(value: Any) -> float | None:
    """Return a number as a float; None for what is not finite, beyond all that can be drawn, or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if abs(value) < HUGE else None
    except OverflowError:  # an integer of more than 308 digits
        return None


def read(folder: pathlib.Path, *, own: bool = False) -> Record:
    """Read a run folder; `own`: this process trains in it, and is about to leave.

    Raises UserError if it is no run folder, or not a step has been done.
    """
    files = RunFiles(folder)
    if not folder.is_dir():
        raise UserError(f"there is no run folder {folder}; train.py makes run folders")
    if not files.json.exists():
        raise UserError(f"{folder} is not a run folder: it has no {files.json.name} (train.py makes run folders)")
    settings, steps = _settings(files)
    rows = tuple(sorted(_rows(files.metrics), key=lambda row: row["step"]))
    results_step, results = _results(files, rows)
    # A "time" row is of a process, which may have gone beyond the checkpoint from which the next one went on.
    step = max([row["step"] for row in rows if row["split"] != "time"] + files.steps + [results_step])
    if not step:
        raise UserError(f"{folder} has no step yet to report on; wait for its first line of metrics, or train on")
    text, about = _about(files)
    return Record(
        name=folder.absolute().name,
        files=files,
        settings=settings,
        text=text,
        about=about,
        rows=rows,
        results=results,
        results_step=results_step,
        notes=tuple(row for row in _json_lines(files.notes) if isinstance(row.get("step"), int)),
        previews=_previews(files, step),
        sharding=tuple(_sharding(files)),
        step=step,
        steps=steps,
        going_on=not own and _is_held(files),
        **_config(about.get("command", "")),
    )


def _settings(files: RunFiles) -> tuple[dict[str, str], int]:
    data = read_json(files.json)
    try:
        return codec.flatten(moved.renamed(data)), int(data["steps"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{files.json} does not describe an experiment; is it damaged?") from error


def _json_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; a line that a crash cut short is left out."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return [row for row in found if isinstance(row, dict)]


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    rows = _json_lines(path)
    return [row for row in rows if type(row.get("step")) is int and isinstance(row.get("split"), str)]


def _results(files: RunFiles, rows: tuple[Mapping[str, Any], ...]) -> tuple[int, dict[str, Any]]:
    """Return the newest results: eval.json's, or those of a later evaluation."""
    found: list[tuple[int, dict[str, Any]]] = [(0, {})]
    for row in rows:
        if row["split"] == "test":
            found.append((row["step"], {name: x for name, x in row.items() if name not in ("step", "split")}))
    if files.eval.exists():
        data = read_json(files.eval)
        if isinstance(data, dict) and type(data.get("step")) is int and isinstance(data.get("metrics"), dict):
            found.append((data["step"], data["metrics"]))
    return max(found, key=lambda each: each[0])


def _about(files: RunFiles) -> tuple[str, dict[str, str]]:
    """Return the experiment's text, and what stands below it: a line each, a name and a value."""
    text = files.text.read_text(encoding="utf-8", errors="replace") if files.text.exists() else ""
    experiment, _, below = text.rstrip().rpartition("\n\n")
    pairs = (line.partition(" ") for line in below.splitlines())
    return experiment, {name: value for name, _, value in pairs if value}


def _config(command: str) -> dict[str, str]:
    """Find the config that a command trained: its first line, and its result unless it has none."""
    for word in [word.removeprefix("--config=") for word in command.split()[1:]]:
        try:
            summary, promise = catalogue.summary(catalogue.locate(word)) if word[0] != "-" else ("", "")
        except UserError:
            continue
        if promise not in ("", "no result"):
            return {"summary": summary, "promise": promise}
    return {"summary": "", "promise": ""}


def _previews(files: RunFiles, last: int) -> dict[str, tuple[tuple[int, pathlib.Path], ...]]:
    """Return pictures by their name, oldest first; those of a step that a resumed run has not reached are not its."""
    found: dict[str, list[tuple[int, pathlib.Path]]] = {}
    for path in sorted(files.previews.glob("step_*.png")):
        if (match := PREVIEW.fullmatch(path.name)) and int(match[1]) <= last:
            found.setdefault(match[2], []).append((int(match[1]), path))
    return {name: tuple(sorted(pictures)) for name, pictures in found.items()}


def _sharding(files: RunFiles) -> list[tuple[str, str, str, int]]:
    """Read the lines that `parallel.rules.table` wrote, without its head and its sum."""
    lines = files.sharding.read_text(errors="replace").splitlines() if files.sharding.exists() else []
    found = []
    for cells in (re.split(r" {2,}", line.strip()) for line in lines[1:]):
        if len(cells) == 4 and re.fullmatch(r"[\d,]+", cells[3]):
            found.append((cells[0], cells[1], cells[2], int(cells[3].replace(",", ""))))
    return found


def _is_held(files: RunFiles) -> bool:
    """Whether the folder's lock has been touched a moment ago, as a living process does."""
    try:
        return time.time() - (files.path / lock.NAME).stat().st_mtime < lock.WAIT
    except OSError:
        return False
