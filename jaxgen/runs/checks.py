"""What is checked before the first step, so that nothing is found wrong when the training is over."""

import shutil

import jax
import numpy as np

from jaxgen import evaluation
from jaxgen.data import identity
from jaxgen.data.batches import rows_at
from jaxgen.data.source import Examples
from jaxgen.errors import UserError
from jaxgen.pictures import sheet
from jaxgen.program import Program
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import widths
from jaxgen.typing import Batch

SPREAD = 8  # places in the data at which examples are read


def check_data(train: Examples, test: Examples) -> None:
    """Raise UserError unless there are examples to learn from and to measure on, of the same distinct classes."""
    for name, examples in {"training": train, "test": test}.items():
        if not len(examples):
            raise UserError(f"there are no {name} examples")
    identity.check_classes(train.classes, test.classes, ("the training data", "the test data"))
    if twice := sorted({name for name in train.classes if train.classes.count(name) > 1}):
        raise UserError(f"two classes are called {twice[0]!r}; give each class a name of its own")


def check(program: Program, train: Examples, test: Examples) -> None:
    """Raise UserError for what could only fail while the run evaluates, draws and measures; nothing is compiled."""
    experiment, objective = program.experiment, program.objective
    if experiment.snapshot_every and not any(map(widths, objective.learners.values())):
        raise UserError("--snapshot-every keeps EMAs for later; the learners' `ema` hold no PowerEma(width=…)")
    _check_sizes(program, test)
    evaluation.check(program, train, test)


def check_room(program: Program, folder: RunFolder) -> list[str]:
    """Return what to say of the free space of the disk.

    Raises UserError where it holds no checkpoint.
    """
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.shapes))
    free, keep = shutil.disk_usage(folder.path).free, program.experiment.keep
    sizes = f"a checkpoint takes {_bytes(size)}, and {folder.path} has {_bytes(free)} left"
    if size > free:
        raise UserError(f"{sizes}; make room, or choose another disk with --run-dir")
    kept = len([step for step in folder.steps if (folder.checkpoints / str(step)).is_dir()])
    if size * max(keep + 1 - kept, 1) > free:
        return [f"warning: {sizes}: too little for --keep {keep}, and one more while it is written"]
    return []


def check_preview(program: Program, shown: Batch) -> None:
    """Raise what drawing the previews of such a batch would raise; nothing is compiled."""
    with jax.set_mesh(program.mesh):
        pictures = program.preview.function.eval_shape(program.shapes, shown)
    for picture in jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), dict(pictures)).values():
        sheet.draw(picture, program.data.classes, program.experiment.test.source)
    sheet.legend(program.data.classes, list(range(len(program.data.classes))))


def _check_sizes(program: Program, test: Examples) -> None:
    """Raise UserError where images of one batch, here and there in the test data, differ in size."""
    experiment = program.experiment
    size = evaluation.divided(program, experiment.test_batch_size)
    for begin in _spread(-(-len(test) // size)):
        rows_at(test, experiment.test.transforms, [begin * size, min((begin + 1) * size, len(test)) - 1])


def _spread(count: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, SPREAD).astype(int)).tolist()


def _bytes(count: int) -> str:
    unit = ["kB", "MB", "GB", "TB"]
    power = min(max((len(str(count)) - 1) // 3, 1), len(unit))
    return f"{count / 1000**power:.3g} {unit[power - 1]}"
