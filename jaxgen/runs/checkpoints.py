"""Checkpoints: Orbax does the writing; a checksum taken on the device tells whether what comes back is what went in."""

import contextlib
import gc
import logging
import pathlib
import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32
from orbax.checkpoint import v1 as ocp

from jaxgen.errors import UserError
from jaxgen.parallel.processes import barrier, is_main_process
from jaxgen.typing import Tree

# Orbax reports every damaged file through absl with a traceback; ours is the one line that `restore` says.
logging.getLogger("absl").setLevel(logging.CRITICAL)

# What the operating system says where a file cannot be written; libraries quote it.
DISK = re.compile(
    "No space left on device|Disk quota exceeded|Read-only file system|Permission denied|Input/output error"
)


def checksum(state: Tree) -> UInt32[Array, ""]:
    """Fold every bit of the state into 32: any single changed word changes it, and no sharding does.

    Sums of odd multiples modulo 2^32 do not depend on the order of summation, so the same state has the same
    checksum on one device and on a pod. Storage formats check what they compress at best; this checks the arrays.
    """
    found: Any = ()
    for leaf in jax.tree.leaves(state):
        found = _added(found, leaf)
    return found[0]


@jax.jit  # array by array: those of one shape share a program, and one for all of a net takes twice as long to compile
def _added(found: tuple[()] | tuple[Array, Array], leaf: Array) -> tuple[Array, Array]:
    """Return the sum with one more array in it, and the odd number that the next one is multiplied by."""
    total, odd = found or (jnp.uint32(0), jnp.uint32(1))
    words = _words(leaf)
    # Places in the flattened array, without flattening it: that would gather what lies on many devices.
    place = jnp.uint32(0)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    place = place * jnp.uint32(2) + jnp.uint32(1)
    return total + jnp.sum(words * place, dtype=jnp.uint32) * odd, odd + jnp.uint32(2)


def _words(leaf: Array) -> Array:
    """View an array as unsigned integers, one for each element."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    bits = leaf.dtype.itemsize * 8
    return jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)


class Checkpoints:
    """The checkpoints of one run, the newest `keep` or all; saves are asynchronous; one that was cut off is none."""

    def __init__(self, folder: str | pathlib.Path, *, keep: int | None = 2, writable: bool = True) -> None:
        self.folder = folder = pathlib.Path(folder)
        policies = ocp.training.preservation_policies
        self._orbax = ocp.training.Checkpointer(
            str(folder.resolve()),  # Orbax writes to absolute paths only
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),  # pyrefly: ignore
            preservation_policy=policies.PreserveAll() if keep is None else policies.LatestN(keep),  # pyrefly: ignore
            cleanup_tmp_directories=writable,
        )
        self._saving: Any = None  # the save under way

    @property
    def steps(self) -> list[int]:
        """The steps at which there is a checkpoint, oldest first."""
        return sorted(found.step for found in self._orbax.checkpoints)

    def save(self, step: int, state: Tree) -> None:
        """Copy the state to the host and write it while training goes on.

        Raises UserError, here or when it is waited for, where the disk takes no more.
        """
        sums = {"checksum": checksum(state)}
        with self._writing():
            self._saving = self._orbax.save_checkpointables_async(step, {"state": state, "sums": sums}, force=True)

    def restore(self, step: int, target: Tree) -> Tree:
        """Read the state of one step into the shapes and shardings of `target`.

        Raises UserError, naming the step, if it is not there, damaged, or of other shapes.
        """
        self._finish()
        if step not in self.steps:
            there = ", ".join(map(str, self.steps)) or "none"
            raise UserError(f"no checkpoint of step {step} in {self.folder}; there are: {there}")
        found, reason = self._load(step, target)
        if reason:
            _drop_quietly()
            raise UserError(f"checkpoint of step {step} in {self.folder} cannot be read: {reason:.160}")
        if int(checksum(found["state"])) != int(found["sums"]["checksum"]):
            raise UserError(f"checkpoint of step {step} in {self.folder} is damaged: its checksum differs")
        return found["state"]

    def _load(self, step: int, target: Tree) -> tuple[dict[str, Any], str]:
        scalar = jax.ShapeDtypeStruct((), jnp.uint32, sharding=jax.tree.leaves(target)[0].sharding)
        try:
            return self._orbax.load_checkpointables(step, {"state": target, "sums": {"checksum": scalar}}), ""
        except (KeyError, ValueError, OSError, TypeError) as error:
            cause = str(error.__cause__ or error).strip() or type(error).__name__
            return {}, cause.splitlines()[0].split(". ")[0].strip(' "')

    def restore_latest(self, target: Tree, say: Callable[[str], None]) -> tuple[int, Tree] | None:
        """Restore the newest checkpoint that is whole, saying which ones are not; None where there is none at all.

        Raises UserError if there are checkpoints and none is whole.
        """
        self._finish()
        steps = self.steps[::-1]
        for step in steps:
            try:
                return step, self.restore(step, target)
            except UserError as error:
                before = [s for s in steps if s < step]
                say(f"{error}; " + (f"going back to step {before[0]}" if before else "there is none before it"))
        if steps:
            raise UserError(
                f"no checkpoint in {self.folder} can be read; remove the folder to start from the beginning"
            )
        return None

    def set_aside(self, newer_than: int) -> None:
        """Move damaged checkpoints newer than a step out of the way of the steps that will be saved again."""
        newer = [s for s in self.steps if s > newer_than]
        barrier("before setting aside")
        for step in newer if is_main_process() else []:
            aside = self.folder.parent / "damaged" / str(step)
            aside.parent.mkdir(exist_ok=True)
            shutil.rmtree(aside, ignore_errors=True)
            (self.folder / str(step)).rename(aside)
        barrier("after setting aside")
        self._orbax.reload()

    def _finish(self) -> None:
        """Wait for the save under way: what is half written cannot be read."""
        if self._saving is not None:
            with self._writing():
                self._saving.result()
            self._saving = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn what the disk, or a library on its behalf, says of a failed write into a UserError."""
        try:
            yield
        except (OSError, ValueError) as error:
            if not (found := DISK.search(str(error))):
                raise
            last = f"the last whole one is of step {self.steps[-1]}" if self.steps else "there is no whole one"
            raise UserError(f"cannot write a checkpoint to {self.folder}: {found[0]}; {last}") from error

    def close(self) -> None:
        """Wait until all is written.

        Raises UserError as `save` does.
        """
        with self._writing():
            self._orbax.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _drop_quietly() -> None:
    """Collect what a failed read left behind: Orbax's unfinished coroutines, which would each print a warning.

    Reads under way still report to the event loop that is gone, a moment later: that moment is waited for.
    """
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
            time.sleep(0.5)
            gc.collect()
    finally:
        sys.unraisablehook = hook
