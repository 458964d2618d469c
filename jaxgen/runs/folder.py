"""A run folder: what an experiment leaves behind, and the proof that it is this experiment's."""

import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np

from jaxgen.config import codec
from jaxgen.data.batches import DataSpec
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel.processes import barrier, is_main_process

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """Names of the files in a run folder."""

    path: pathlib.Path
    allow: tuple[str, ...] = ()
    """Packages, in addition to jaxgen and the user's own project, whose classes may be rebuilt from the folder."""

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
    def sharding(self) -> pathlib.Path:
        return self.path / "sharding.txt"

    @property
    def json(self) -> pathlib.Path:
        return self.path / "experiment.json"

    def claim(self, experiment: Experiment, data: DataSpec) -> list[str]:
        """Make the folder this experiment's, or check that it already is; return what else is laid out or logged since.

        Raises UserError if the folder holds another experiment (naming the fields that differ), holds something
        else, or cannot be written. The same experiment may go on with another mesh, rule, loggers or watchdog.
        """
        encoded = codec.encode(experiment)
        moved: list[str] = []
        if self.json.exists():
            stored = _read(self.json)
            if stored != encoded:  # a folder of an earlier version is compared by today's names and defaults
                stored = codec.encode(codec.decode(stored, self.allow, self.path))
            differ = codec.differences(stored, encoded)
            moved = [line for line in differ if line.startswith(codec.LAYOUT)]
            differ = [line for line in differ if line not in moved]
            if differ:
                more = f"; and {len(differ) - 4} more" if len(differ) > 4 else ""
                raise UserError(
                    f"{self.path} holds another experiment: {'; '.join(differ[:4])}{more}\n"
                    "give this one its own folder with --run-dir, or remove that one"
                )
        elif self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(f"{self.path} is there and is not a run folder; choose another with --run-dir")
        barrier("before claiming the run folder")
        if is_main_process():
            self._write(experiment, encoded, data, fresh=moved != [] or not self.json.exists())
        barrier("after claiming the run folder")
        return moved

    def _write(self, experiment: Experiment, encoded: Any, data: DataSpec, *, fresh: bool) -> None:
        try:
            self.previews.mkdir(parents=True, exist_ok=True)
            probe = self.path / ".writable"
            probe.touch()
            probe.unlink()
            if fresh:
                self.text.write_text(_about(experiment))
                element = {name: [list(shape), str(dtype)] for name, (shape, dtype) in data.element.items()}
                (self.path / "data.json").write_text(json.dumps({"classes": data.classes, "element": element}))
                # Written last and at once: a folder with this file in it has been claimed whole.
                whole = self.json.with_suffix(".tmp")
                whole.write_text(json.dumps(encoded, indent=1))
                whole.replace(self.json)
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}; choose another with --run-dir") from error

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The experiment that made this folder.

        Raises UserError if there is no run here or the code has moved on.
        """
        if not self.json.exists():
            raise UserError(f"{self.path} is not a run folder: it has no {self.json.name} (train.py makes run folders)")
        experiment = codec.decode(_read(self.json), self.allow, self.path)
        if not isinstance(experiment, Experiment):
            raise UserError(f"{self.json} holds no Experiment")
        return experiment

    @functools.cached_property
    def data(self) -> DataSpec:
        """The data that the run was made from."""
        found = _read(self.path / "data.json")
        element = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in found["element"].items()}
        return DataSpec(tuple(found["classes"]), element)


def _read(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # not there, not text, not JSON, or nested without end
        raise UserError(f"cannot read {path}: {error}") from error


def _about(experiment: Experiment) -> str:
    lines = [codec.describe(experiment), ""]
    lines += [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    lines += [f"python {sys.version.split()[0]}", f"devices {jax.device_count()} x {jax.devices()[0].device_kind}"]
    lines += [f"commit {_commit()}", f"command {' '.join(sys.argv)}"]
    return "\n".join(lines) + "\n"


def _commit() -> str:
    """The git commit of the code, with "+" where it has uncommitted changes."""
    here = pathlib.Path(__file__).parent
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown (not in a git checkout)"
    return commit + ("+" if dirty.strip() else "")


def write_results(folder: RunFolder, step: int, results: dict[str, Any]) -> None:
    """Write eval.json, whole or not at all."""
    fresh = folder.eval.with_suffix(".tmp")
    fresh.write_text(json.dumps({"step": step, "metrics": results}, indent=1) + "\n")
    fresh.replace(folder.eval)
