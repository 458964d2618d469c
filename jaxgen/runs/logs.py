"""What a run says while it runs: a line for machines (metrics.jsonl), curves (TensorBoard), a line for people."""

import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import rich.console
import rich.progress
import tensorboardX


class Log(Protocol):
    """Where metrics go; a run writes to several."""

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None: ...
    def image(self, step: int, name: str, pixels: np.ndarray) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """One JSON object a line; opening at step k drops the lines of steps that a resumed run will write again."""

    def __init__(self, path: pathlib.Path, *, resume_from: int) -> None:
        kept = []
        if path.exists():
            # A line that a crash cut short is of a step that comes again.
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= resume_from]
        path.write_text("".join(f"{line}\n" for line in kept))
        self._file = path.open("a")

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        row = {"step": step, "split": split, **values}  # JSON knows no NaN: null it is
        self._file.write(json.dumps({k: None if _is_nan(v) else v for k, v in row.items()}) + "\n")
        self._file.flush()

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        pass

    def close(self) -> None:
        self._file.close()


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


class TensorBoard:
    """Scalars and previews as TensorBoard events; a resumed run hides what it writes again."""

    def __init__(self, folder: pathlib.Path, *, resume_from: int) -> None:
        self._writer = tensorboardX.SummaryWriter(str(folder), purge_step=resume_from + 1 if resume_from else None)

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{split}/{name}", value, step)

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class Terminal:
    """One progress line (step, loss, images/s, ETA) on a terminal, and plain lines where there is none."""

    def __init__(self, steps: int, *, done: int) -> None:
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
        """Move the bar."""
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


class Silent:
    """What the other processes of a run have in the terminal's place."""

    def say(self, text: str) -> None:
        pass

    def advance(self, step: int) -> None:
        pass


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
