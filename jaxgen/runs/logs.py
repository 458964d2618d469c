"""Loggers: a line for machines (metrics.jsonl), curves (TensorBoard), a line for people (the terminal), and one's own.

A logger is a value in the experiment; `open` makes the Log of one run. Several processes share a run: only the main one
opens loggers.
"""

import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from jaxgen.progress import Line, Rate, clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a logger may want to know of the run."""

    folder: pathlib.Path
    start: int
    """Steps already done; what was logged of later ones is written again."""
    steps: int
    """Steps of the whole training."""
    settings: Mapping[str, str]
    """The experiment's fields by their names on the command line."""


@runtime_checkable
class Log(Protocol):
    """Where one run's metrics go."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Take metrics of a split: numbers, and for "test" whatever evaluation returns."""
        ...

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        """Take a preview u8[h w 3]."""
        ...

    def say(self, text: str) -> None:
        """Take a line for a person: a note, a warning, a result."""
        ...

    def advance(self, step: int) -> None:
        """Hear that a step has been dispatched."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


@runtime_checkable
class Progressing(Protocol):
    """A Log that also wants to hear how far work other than steps is."""

    def progress(self, doing: str, done: int, total: int) -> None:
        """Hear that of some work ("evaluation", "samples") so many rows are done; 0 of 0: it has begun."""
        ...


@runtime_checkable
class Logger(Protocol):
    """A frozen dataclass that opens a Log."""

    def open(self, run: RunInfo) -> Log:
        """Open the log of a run.

        Raises UserError for what the user can fix; nothing has been computed yet.
        """
        ...


class Logs:
    """Several logs as one."""

    def __init__(self, logs: Sequence[Log]) -> None:
        self._logs = logs

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        for log in self._logs:
            log.write(step, split, values)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        for log in self._logs:
            log.image(step, name, pixels)

    def say(self, text: str) -> None:
        for log in self._logs:
            log.say(text)

    def advance(self, step: int) -> None:
        for log in self._logs:
            log.advance(step)

    def progress(self, doing: str, done: int, total: int) -> None:
        for log in self._logs:
            if isinstance(log, Progressing):
                log.progress(doing, done, total)

    def close(self) -> None:
        for log in self._logs:
            log.close()


@dataclasses.dataclass(frozen=True)
class JsonLines:
    """One JSON object a line in metrics.jsonl; opening at step k drops the lines of later steps.

    Lines of the split "time" stay: each is of one process, the seconds that it spent on each part of the run.
    """

    name: str = "metrics.jsonl"
    """The file's name in the run folder."""

    def open(self, run: RunInfo) -> Log:
        path = run.folder / self.name
        # A line that a crash cut short is of a step that comes again.
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        fresh = path.with_name(f"{path.name}.tmp")
        fresh.write_text("".join(f"{line}\n" for line in lines if _stays(line, run.start)))
        fresh.replace(path)  # at once: a process that is killed here loses no line
        return _JsonLines(path)


class _JsonLines:
    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("a")

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        row = {"step": step, "split": split, **values}  # JSON has no NaN: it becomes null
        self._file.write(json.dumps({k: None if _is_nan(v) else v for k, v in row.items()}) + "\n")
        self._file.flush()

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def close(self) -> None:
        self._file.close()


def _stays(line: str, start: int) -> bool:
    try:
        row = json.loads(line)
        return float(row["step"]) <= start or row["split"] == "time"
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return False


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class TensorBoard:
    """Scalars and previews as TensorBoard events in the run folder; a resumed run hides what it writes again."""

    def open(self, run: RunInfo) -> Log:
        return _TensorBoard(run)


class _TensorBoard:
    def __init__(self, run: RunInfo) -> None:
        import tensorboardX  # takes a while to import, for which a command that trains nothing need not wait

        earlier = any(run.folder.glob("events.out.tfevents.*"))
        self._writer = tensorboardX.SummaryWriter(str(run.folder), purge_step=run.start + 1 if earlier else None)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def say(self, text: str) -> None:
        pass

    def advance(self, step: int) -> None:
        pass

    def close(self) -> None:
        self._writer.close()


@dataclasses.dataclass(frozen=True)
class Terminal:
    """One progress line on a terminal (step, ETA, losses, images/s, and what else there is room for); plain lines
    where there is none, or a dumb one."""

    def open(self, run: RunInfo) -> Log:
        return _Terminal(run.steps)


class _Terminal:
    def __init__(self, steps: int) -> None:
        self._line = Line(sys.stdout)
        self._steps = steps
        self._rate = Rate()
        self._left: float | None = None  # seconds
        self._scalars: list[str] = []

    def say(self, text: str) -> None:
        self._line.say(text)

    def advance(self, step: int) -> None:
        self._left = self._rate.left(step, self._steps)
        if self._line.redrawn and (self._line.due() or step == self._steps):
            self._line.show(self._words(step))

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        if split != "train":
            self._line.keep([f"step {step}", split, *(f"{name} {_short(value)}" for name, value in numbers.items())])
            return
        self._scalars = [f"{name} {_short(numbers[name])}" for name in sorted(numbers, key=_rank)]
        (self._line.show if step < self._steps else self._line.keep)(self._words(step))  # the last one stays

    def _words(self, step: int) -> list[str]:
        eta = [] if self._left is None or step == self._steps else [f"ETA {clock(self._left)}"]
        return [f"step {step}/{self._steps}", *eta, *self._scalars]

    def progress(self, doing: str, done: int, total: int) -> None:
        self._line.hear(doing, done, total)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        pass

    def close(self) -> None:
        self._line.erase()
        sys.stdout.flush()


def _rank(name: str) -> int:
    """What comes first where there is no room for all: losses, then the speed; the rest stays in its order."""
    return 0 if name == "loss" else 1 if "loss" in name else 2 if name == "images_per_second" else 3


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
