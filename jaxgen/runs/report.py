"""The report as a logger: notes are kept as they are said, and report.html is written when the process leaves."""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.report import page, record
from jaxgen.runs.files import RunFiles
from jaxgen.runs.logs import Log, RunInfo

try:
    import resource
except ImportError:  # Windows
    resource = None


@dataclasses.dataclass(frozen=True)
class Report:
    """One page on the run, report.html in its folder; its curves are those of metrics.jsonl."""

    def open(self, run: RunInfo) -> Log:
        return _Report(run)


class _Report:
    """Each line of notes.jsonl has the step at which it was said, or at which memory was read."""

    def __init__(self, run: RunInfo) -> None:
        self._files = RunFiles(run.folder)
        self._step, self._steps = run.start, run.steps
        self._results = False
        # A run that begins has no notes yet: those in the folder are of an attempt that it replaces.
        self._file = self._files.notes.open("a" if run.start else "w", encoding="utf-8")

    def write(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        self._results |= split == "test" and step == self._steps

    def image(self, step: int, name: str, pixels: np.ndarray) -> None:
        pass

    def say(self, text: str) -> None:
        if not self._results:  # what is said after the last evaluation is its table, which the page has
            self._keep({"text": text})

    def advance(self, step: int) -> None:
        self._step = step

    def close(self) -> None:
        self._keep(_memory())
        self._file.close()
        write(self._files.path)

    def _keep(self, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"step": self._step, **values}) + "\n")
        self._file.flush()


def write(folder: pathlib.Path) -> None:
    """Write the report of a run that this process trains; where that fails, warn: no run is lost for its report."""
    files = RunFiles(folder)
    try:
        page.write(files.report, page.of_run(record.read(folder, own=True)))
    except (UserError, OSError) as error:
        print(f"warning: {files.report} is not written: {error}", file=sys.stderr)


def _memory() -> dict[str, int]:
    """Return the most memory that this process and its first device have used, where the system says so."""
    found: dict[str, int] = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        found["host_peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        found["device_peak_bytes"] = stats["peak_bytes_in_use"]
    return found
