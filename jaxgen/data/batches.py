"""Batches as functions of position: batch k = f(seed, k), for any number of devices, processes and workers.

So the order of the data needs no checkpoint: a run that starts at step k asks for batch k. Position j = k·B + i of
the endless training sequence is example permutation(seed, epoch)[j mod N] of epoch j // N, with draws from (seed, j).
"""
# ruff: noqa: PT028 (test_batches is no test)

import contextlib
import dataclasses
import functools
import itertools
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
from jaxtyping import Int

from jaxgen.data.augment import Transform, Unlabelled
from jaxgen.data.source import Examples, Positioned, Source, Table, name_of
from jaxgen.data.tokenizers import digest_of_words
from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example

RAGGED = frozenset({"boxes", "labels", "caption"})  # their length differs from example to example: they do not stack
UNBATCHED = RAGGED | {"frame"}  # what no batch holds
THREADS = 1  # that make batches ahead of the step: a second one would wait for the interpreter's lock
LOOKED_AT = 8  # examples that are looked at to know the size of all
AHEAD = 4  # batches made ahead of the step
SEVERAL = 8  # batches made at once where they are SMALL and nothing is drawn: their steps take a few milliseconds
SMALL = 2**20  # bytes

Rows = Int[np.ndarray, " n"]  # places in a batch: those that one process has to read
Batch = dict[str, np.ndarray]  # an Example with a leading b axis, and `valid` bool[b] and `index` i32[b] in evaluation


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Where examples come from and what happens to each before it joins a batch."""

    source: Source
    transforms: tuple[Any, ...] = ()  # of Transform; Any lets the command line reach into each
    workers: int = 0
    """Processes that make batches; 0 makes them in threads, which is enough for small images."""


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """What a run knows of its data without opening it: the classes, and the arrays of one training example."""

    classes: tuple[str, ...]
    element: dict[str, tuple[tuple[int, ...], np.dtype]]
    """Shape and type of each array that one example gives to a batch."""
    counts: tuple[int, int] | None = None
    """Training and test examples; None where they are not known, as in runs of earlier versions."""
    words: str = ""
    """Digest of the words that captions' token ids stand for; "" for none, and in runs of earlier versions."""

    @classmethod
    def of(cls, examples: Examples, transforms: Sequence[Transform]) -> "DataSpec":
        """Read one example."""
        return cls(examples.classes, element(examples, transforms), words=digest_of_words(transforms))


def train_batches(
    examples: Examples,
    transforms: Sequence[Transform],
    *,
    seed: int,
    batch_size: int,
    start: int,
    stop: int,
    rows: Rows | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield these rows, by default all, of the batches start … stop-1, made ahead of time by Grain.

    Raises UserError if the images of a batch differ in size.
    """
    rows = np.arange(batch_size) if rows is None else rows
    return _ahead(_Train(examples, tuple(transforms), seed, batch_size, rows, stop), start, workers)


def test_batches(
    examples: Examples,
    transforms: Sequence[Transform],
    *,
    batch_size: int,
    rows: Rows | None = None,
    workers: int = 0,
) -> Iterator[Batch]:
    """Yield these rows, by default all, of batches that hold every example once, in order.

    The last batch is filled up with zeros (masks with 255); `valid` bool[b] is true in the rows that are examples, and
    `index` i32[b] is each row's place in the data.
    Raises UserError as `train_batches` does.
    """
    rows = np.arange(batch_size) if rows is None else rows
    return _ahead(_Test(examples, tuple(transforms), batch_size, rows), 0, workers)


def element(examples: Examples, transforms: Sequence[Transform]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return (shape, type) of each array that one example gives to a batch.

    Raises UserError if a few examples, evenly spread, already differ in size.
    """
    spread = np.unique(np.linspace(0, len(examples) - 1, LOOKED_AT).astype(int)).tolist()
    row = rows_at(examples, transforms, spread)
    return {key: (value.shape[1:], value.dtype) for key, value in row.items()}


def rows_at(examples: Examples, transforms: Sequence[Transform], indices: Sequence[int]) -> Batch:
    """Return the examples at these places as one batch, prepared as evaluation prepares them.

    Raises UserError if their images differ in size.
    """
    chain = tuple(transforms)
    rows = [_augmented(examples, chain, int(i), np.random.default_rng(int(i))) for i in indices]
    return _stacked(rows, examples, indices)


def transformed(example: Example, transforms: Sequence[Transform], rng: np.random.Generator) -> Example:
    """Return the example after these transforms, which draw from `rng` in turn."""
    for transform in transforms:
        example = transform(rng, example)
    return example


def shuffled(seed: int, position: int, size: int) -> int:
    """Return which of so many examples lies at this position of the endless training sequence."""
    epoch, within = divmod(position, size)
    return int(_permutation(seed, epoch, size)[within])


def draws(seed: int, position: int) -> np.random.Generator:
    """Return what the transforms of the example at this position draw from."""
    return np.random.default_rng((seed, 1, position))


class _Train:
    """The training batches by number; Grain's threads and workers ask for them in any order."""

    def __init__(
        self, examples: Examples, transforms: tuple[Transform, ...], seed: int, batch_size: int, rows: Rows, stop: int
    ):
        self._examples, self._transforms, self._seed = examples, transforms, seed
        self._batch_size, self._rows, self._stop = batch_size, rows, stop
        self._drawn_for = isinstance(examples, Positioned) or not all(isinstance(t, Unlabelled) for t in transforms)
        self.at_once = 1
        if not self._drawn_for:  # elsewhere no example need be read here
            size = sum(array.nbytes for array in examples[0].values()) * len(rows)
            self.at_once = SEVERAL if size <= SMALL else 1

    def __len__(self) -> int:
        return self._stop

    def __getitem__(self, index: int) -> Batch:
        places = index * self._batch_size + self._rows
        indices = self._chosen(places)
        if self._drawn_for:
            rows = [self._row(j, i) for j, i in zip(places.tolist(), indices.tolist(), strict=True)]
            return _stacked(rows, self._examples, indices.tolist())
        return self._as_they_are(indices)

    def _chosen(self, places: Rows) -> Rows:
        epochs, within = np.divmod(places, len(self._examples))
        chosen = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            chosen[here] = _permutation(self._seed, epoch, len(self._examples))[within[here]]
        return chosen

    def _as_they_are(self, indices: Rows) -> Batch:
        """Examples that no transform draws for: a random stream for each would take longer than to read it."""
        if isinstance(self._examples, Table):
            batch = self._examples.take(indices)
        else:
            batch = _stacked([_batched(self._examples[i]) for i in indices.tolist()], self._examples, indices.tolist())
        rng = np.random.default_rng(0)  # which nothing is drawn from
        return functools.reduce(lambda batch, transform: transform(rng, batch), self._transforms, batch)

    def _row(self, j: int, index: int) -> Example:
        rng = draws(self._seed, j)
        if isinstance(self._examples, Positioned):
            return _batched(transformed(self._examples.at(self._seed, j), self._transforms, rng))
        return _augmented(self._examples, self._transforms, index, rng)


class _Test:
    """The evaluation batches by number."""

    def __init__(self, examples: Examples, transforms: tuple[Transform, ...], batch_size: int, rows: Rows):
        self._examples, self._transforms = examples, transforms
        self._batch_size, self._rows = batch_size, rows
        self.at_once = 1

    def __len__(self) -> int:
        return -(-len(self._examples) // self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        indices = [index * self._batch_size + int(i) for i in self._rows]
        real = [self._row(i) for i in indices if i < len(self._examples)]
        missing = len(indices) - len(real)
        like = (real or [self._row(0)])[0]
        blank = {key: np.full_like(value, IGNORE if key == "mask" else 0) for key, value in like.items()}
        where = {"valid": np.arange(len(indices)) < len(real), "index": np.array(indices, np.int32)}
        return _stacked(real + [blank] * missing, self._examples, indices) | where

    def _row(self, index: int) -> Example:
        return _augmented(self._examples, self._transforms, index, np.random.default_rng(index))


class _Several:
    """The batches from `start` on, some at a time: to hand over one element takes Grain 0.1 to 0.2 ms."""

    def __init__(self, batches: _Train | _Test, start: int, size: int):
        self._batches, self._start, self._size = batches, start, size

    def __len__(self) -> int:
        return -(-(len(self._batches) - self._start) // self._size)

    def __getitem__(self, index: int) -> list[Batch]:
        first = self._start + index * self._size
        return [self._batches[i] for i in range(first, min(first + self._size, len(self._batches)))]


def _ahead(batches: _Train | _Test, start: int, workers: int) -> Iterator[Batch]:
    """Let Grain make the batches from `start` on, each whole: it has nothing to stack or drop."""
    import grain  # takes a second, and a command that opens no data need not wait
    from absl import flags

    # A thread that makes images holds the interpreter for 5 ms by default: as long as a small step takes to dispatch.
    sys.setswitchinterval(5e-4)
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
    if not workers:
        several = _Several(batches, start, batches.at_once)
        return itertools.chain.from_iterable(grain.MapDataset.source(several).to_iter_dataset(options))
    ahead = grain.MapDataset.source(batches)[start:].to_iter_dataset(options)
    flags.FLAGS.mark_as_parsed()  # Grain reads absl's flags here; they have not been parsed
    # Through pipes: shared memory is often 64 MB in a container, and outlives a process that is killed.
    by_pipe = grain.experimental.DatasetOptions(min_shm_size=1 << 62)
    ahead = grain.experimental.WithOptionsIterDataset(ahead, by_pipe)
    ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return _beyond_workers(iter(ahead), batches, start)


def _beyond_workers(feed: Iterator[Batch], batches: _Train | _Test, start: int) -> Iterator[Batch]:
    """Yield what workers make; once they were stopped, make the batches in this process.

    A scheduler that ends a job signals its whole process group: the workers end at once, while the run still needs a
    batch or two before the step at which it saves.
    """
    for number in range(start, len(batches)):
        try:
            with _sheltered() if number == start else contextlib.nullcontext():  # the first one starts the workers
                batch = next(feed)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):
                raise
            print("warning: the processes that make batches were stopped; going on without them", file=sys.stderr)
            yield from _ahead(batches, number, workers=0)
            return
        yield batch


@contextlib.contextmanager
def _sheltered() -> Iterator[None]:
    """Start processes that Ctrl-C and a closed terminal, which reach the whole group, do not end: this one ends them.

    A new process inherits what is blocked. Other threads of this process still hear these signals.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    group = (signal.SIGINT, signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, group)
    try:
        resource_tracker.ensure_running()  # a process too, which workers need; starting it unblocks SIGINT
        signal.pthread_sigmask(signal.SIG_BLOCK, group)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@functools.lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> Int[np.ndarray, " n"]:
    return np.random.default_rng((seed, 0, epoch)).permutation(size)


def _augmented(examples: Examples, transforms: tuple[Transform, ...], index: int, rng: np.random.Generator) -> Example:
    return _batched(transformed(examples[index], transforms, rng))


def _batched(example: Example) -> Example:
    return {key: value for key, value in example.items() if key not in UNBATCHED}


def _stacked(rows: list[Example], examples: Examples, indices: Sequence[int]) -> Batch:
    for key in rows[0]:
        shapes = [row[key].shape for row in rows]
        if len(set(shapes)) > 1:
            first, *others = sorted(set(shapes))[:4]
            listed = ", ".join(map(_size, (first, *others)))
            found = (f"{name_of(examples, int(indices[shapes.index(s)]))} is {_size(s)}" for s in (first, others[0]))
            raise UserError(
                f"{key}: the sizes in a batch differ ({listed}): {' and '.join(found)}; add a transform that makes "
                "them equal to both pipelines, such as Resize(HEIGHT, WIDTH), RandomScaleCrop, CenterCrop or PadTo"
            )
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
