"""A run folder: what an experiment leaves behind, and the proof that it is this experiment's."""

import dataclasses
import functools
import pathlib
import subprocess
import sys
from typing import Any

import jax
import numpy as np

from jaxgen.config import codec, project
from jaxgen.config.versions import versions
from jaxgen.data.batches import DataSpec
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.runs.files import RunFiles, read_json, write_json


@dataclasses.dataclass(frozen=True)
class RunFolder(RunFiles):
    """A run folder as its experiment's."""

    allow: tuple[str, ...] = ()
    """Packages and folders, besides jaxgen and the user's own project, whose classes may be rebuilt from here."""
    project: tuple[pathlib.Path, ...] = ()
    """Folders of the project that it is trained from, where the experiment has classes of it."""

    def write(self, experiment: Experiment, data: DataSpec) -> None:
        """Write down what is trained here.

        Raises UserError if the folder cannot be written.
        """
        encoded = codec.encode(experiment)
        try:
            self.previews.mkdir(parents=True, exist_ok=True)
            if not (self.text.exists() and self.json.exists() and read_json(self.json) == encoded):
                self.text.write_text(_about(experiment), encoding="utf-8")
            element = {name: [list(shape), str(dtype)] for name, (shape, dtype) in data.element.items()}
            about = {"classes": data.classes, "element": element, "counts": data.counts, "words": data.words}
            write_json(self.json_of_data, about)
            if self.project:
                project.store(self.path, self.project)
            # Written last: a folder with this file in it has been claimed whole.
            write_json(self.json, encoded)
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}; choose another with --run-dir") from error

    @functools.cached_property
    def experiment(self) -> Experiment:
        """The experiment that made this folder.

        Raises UserError if there is no run here or the code has moved on.
        """
        if not self.json.exists():
            raise UserError(f"{self.path} is not a run folder: it has no {self.json.name} (train.py makes run folders)")
        experiment = codec.decode(read_json(self.json), self.allow, self.path)
        if not isinstance(experiment, Experiment):
            raise UserError(f"{self.json} holds no Experiment")
        return experiment

    @functools.cached_property
    def data(self) -> DataSpec:
        """The data that the run was made from."""
        found = read_json(self.json_of_data)
        try:
            element = {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in found["element"].items()}
            counts = None
            if found.get("counts") is not None:
                train, test = map(int, found["counts"])
                counts = (train, test)
            return DataSpec(tuple(map(str, found["classes"])), element, counts, str(found.get("words", "")))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{self.json_of_data} does not describe data; train on to write it anew") from error


def _about(experiment: Experiment) -> str:
    lines = [codec.describe(experiment), ""]
    lines += [f"{name} {version}" for name, version in versions().items()]
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
    write_json(folder.eval, {"step": step, "metrics": results})
