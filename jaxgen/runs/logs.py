"""Loggers: a line for machines (metrics.jsonl), curves (TensorBoard), a line for people (the terminal), and one's own.

A logger is a value in the experiment; `open` makes the Log of one run. Several processes share a run: only the main one
opens loggers.
"""

import dataclasses
import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np


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

    def close(self) -> None:
        for log in self._logs:
            log.close()


@dataclasses.dataclass(frozen=True)
class JsonLines:
    """One JSON object a line in metrics.jsonl; opening at step k drops the lines of later steps."""

    name: str = "metrics.jsonl"
    """The file's name in the run folder."""

    def open(self, run: RunInfo) -> Log:
        path = run.folder / self.name
        # A line that a crash cut short is of a step that comes again.
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        fresh = path.with_name(f"{path.name}.tmp")
        fresh.write_text("".join(f"{line}\n" for line in lines if _step_of(line) <= run.start))
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


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


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
    """One progress line (step, loss, images/s, ETA) on a terminal, and plain lines where there is none."""

    def open(self, run: RunInfo) -> Log:
        return _Terminal(run.steps, run.start)


class _Terminal:
    def __init__(self, steps: int, done: int) -> None:
        import rich.console
        import rich.progress

        self._console = rich.console.Console()
        self._steps = steps
        self._begin, self._done = time.monotonic(), done
        self._progress: rich.progress.Progress | None = None
        if self._console.is_terminal:
            self._progress = rich.progress.Progress(
                rich.progress.TextColumn("step {task.completed}/{task.total}"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.description}"),
                rich.progress.TextColumn("ETA"),
                rich.progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task("compiling", total=steps, completed=done)
            self._progress.start()

    def say(self, text: str) -> None:
        """Print a line above the progress line."""
        if self._progress:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def advance(self, step: int) -> None:
        if self._progress:
            self._progress.update(self._task, completed=step)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        words = "  ".join(f"{name} {_short(value)}" for name, value in values.items() if isinstance(value, int | float))
        if split != "train":
            self.say(f"step {step}  {split}  {words}")
        elif self._progress:
            self._progress.update(self._task, description=words)
        else:
            spent = (time.monotonic() - self._begin) / max(step - self._done, 1)
            self.say(f"step {step}/{self._steps}  {words}  ETA {_clock(spent * (self._steps - step))}")

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        pass

    def close(self) -> None:
        if self._progress:
            self._progress.stop()
        sys.stdout.flush()


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
