"""Making a run folder an experiment's: whose it is, what may change in it, and what an earlier attempt left there."""

import pathlib
import shutil

import numpy as np

from jaxgen.config import codec
from jaxgen.data import identity
from jaxgen.data.batches import DataSpec
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.processes import barrier, is_main_process
from jaxgen.runs import lock
from jaxgen.runs.folder import RunFolder, read_json

# Fields that may change in a run, as no number that training computes depends on them.
MAY_CHANGE = (
    *codec.LAYOUT, "metrics", "keep", "log_every", "evaluate_every", "preview_every", "checkpoint_every",
    "snapshot_every", "test_batch_size", "train.workers", "test.workers",
)  # fmt: skip
UNNOTICED = (lock.NAME, ".DS_Store", "Thumbs.db", "desktop.ini")  # in a folder that is otherwise empty
OF_A_RUN = (
    "experiment.*", "data.json", "project.json", "sharding.txt", "eval.json", "metrics.jsonl", "events.out.tfevents.*",
    "previews/step_*.png", "notes.jsonl", "report.html",
)  # fmt: skip


def check_place(path: pathlib.Path) -> None:
    """Raise UserError unless the path is free for a run, or a run's; nothing is written."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to {path.readlink()}, which is not there; choose another with --run-dir")
    try:
        free = not path.exists() or (path.is_dir() and all(entry.name in UNNOTICED for entry in path.iterdir()))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; choose another with --run-dir") from error
    if not free and not (path / "experiment.json").exists():
        raise UserError(f"{path} is there and is not a run folder; choose another with --run-dir")


def claim(folder: RunFolder, experiment: Experiment, data: DataSpec) -> list[str]:
    """Make the folder this experiment's, or check that it already is; return what to say.

    The same experiment may go on with more steps, another mesh, rule, loggers, watchdog or metrics, and at other
    cadences. A run that never reached a checkpoint is replaced by whichever comes next.

    Raises UserError if the folder holds another experiment (naming the fields that differ), or another experiment's
    data, or cannot be written.
    """
    notes: list[str] = []
    stale = False
    if folder.json.exists():
        try:
            notes = _changes(folder, experiment, data)
        except UserError as error:
            if folder.steps:
                raise
            stale = True
            why = str(error).splitlines()[0].removeprefix(f"{folder.path} holds another experiment: ")
            notes = [f"note: {folder.path} held a run that reached no checkpoint; this one replaces it ({why})"]
    barrier("before claiming the run folder")
    if is_main_process():
        if stale:
            _remove(folder)
        folder.write(experiment, data)
    barrier("after claiming the run folder")
    return notes


def _changes(folder: RunFolder, experiment: Experiment, data: DataSpec) -> list[str]:
    """Return what differs from the run in the folder, where that may be.

    Raises UserError where it may not.
    """
    encoded = codec.encode(experiment)
    try:
        stored = read_json(folder.json)
    except UserError as error:
        raise UserError(f"{error}\nbring that file back, or choose another folder with --run-dir") from error
    if stored != encoded:  # a folder of an earlier version is compared by today's names and defaults
        stored = codec.encode(codec.decode(stored, folder.allow, folder.path))
    differ = codec.differences(stored, encoded)
    steps = [line for line in differ if line.startswith("steps: ")]
    allowed = [line for line in differ if _may_change(line.partition(":")[0])]
    if refused := [line for line in differ if line not in steps + allowed]:
        more = f"; and {len(refused) - 4} more" if len(refused) > 4 else ""
        raise UserError(
            f"{folder.path} holds another experiment: {'; '.join(refused[:4])}{more}\n"
            "give this one its own folder with --run-dir, or remove that one"
        )
    notes = [f"note: changed: {line}" for line in allowed]
    if steps:
        notes += _other_length(folder, experiment, stored["steps"])
    try:
        known = folder.data
    except UserError as error:
        return [*notes, f"note: {error}; taking the data as they are"]
    identity.check_same(known, data)
    training, test = data.counts or (None, None)
    counts = identity.count_notes(known, training=training, test=test)
    if folder.steps and any("training" in line for line in counts):
        counts.append("note: the order of the batches is another one than if the run had seen them from the beginning")
    return notes + counts


def _may_change(field: str) -> bool:
    return any(field == name or field.startswith(f"{name}.") for name in MAY_CHANGE)


def _other_length(folder: RunFolder, experiment: Experiment, before: int) -> list[str]:
    """Say what another number of steps means for a run.

    Raises UserError where the run is beyond it.
    """
    now, reached = experiment.steps, max(folder.steps, default=0)
    if now < reached:
        raise UserError(
            f"{folder.path} holds a run that is at step {reached} of {before}, beyond --steps {now}\n"
            f"go on with --steps {before} or more, or give this one its own folder with --run-dir"
        )
    rates = []
    for name, learner in experiment.objective.learners.items():
        if reached and isinstance(learner.optimizer, Optimizer):
            schedule = learner.optimizer.learning_rate
            was, is_now = (float(np.asarray(schedule.over(steps)(reached))) for steps in (before, now))
            if was != is_now:
                rates.append(f"{name}'s learning rate at step {reached} goes from {was:.3g} to {is_now:.3g}")
    return [f"note: {now} steps instead of {before}: schedules span them all", *(f"note: {line}" for line in rates)]


def _remove(folder: RunFolder) -> None:
    """Remove what an earlier run wrote, and nothing that it did not."""
    for pattern in OF_A_RUN:
        for path in folder.path.glob(pattern):
            path.unlink()
    for place in (folder.checkpoints, folder.snapshots):
        for unfinished in place.glob("*.orbax-checkpoint-tmp*") if place.is_dir() else ():
            shutil.rmtree(unfinished, ignore_errors=True)
