"""The law of batches: batch k is a function of (seed, k), wherever a run starts and however its work is divided."""

import dataclasses
import multiprocessing
from collections.abc import Iterable

import numpy as np
import pytest

from jaxgen.data import batches
from jaxgen.data.augment import Affine, CenterCrop, Flip, PadCrop, Photometric, Transform, Unlabelled
from jaxgen.data.batches import Batch, Pipeline, element, train_batches
from jaxgen.data.fake import FakeLabels, FakeMasks
from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example

MASKS = FakeMasks(height=10, width=12, classes=4, size=23)
MOVES: tuple[Transform, ...] = (PadCrop(10, 12, 2), Flip(), Affine(), Photometric())


@dataclasses.dataclass
class Numbered:
    """Examples whose label is their index."""

    size: int
    classes: tuple[str, ...] = ("x",)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        return {
            "image": np.full((2, 2, 1), index % 256, np.uint8),
            "label": np.array(index, np.int32),
            "boxes": np.zeros((index, 4), np.float32),
            "labels": np.zeros(index, np.int32),
            "caption": np.array("x" * index),
        }


@dataclasses.dataclass
class Sizes:
    """Examples of different sizes."""

    classes: tuple[str, ...] = ("x",)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Example:
        return {"image": np.zeros((20 + index, 30, 3), np.uint8), "mask": np.zeros((20 + index, 30), np.uint8)}


def equal(a: Iterable[Batch], b: Iterable[Batch]) -> bool:
    pairs = list(zip(a, b, strict=True))
    assert pairs
    return all(x.keys() == y.keys() and all(np.array_equal(x[key], y[key]) for key in x) for x, y in pairs)


def train(
    start: int = 0, stop: int = 9, seed: int = 3, moves: tuple[Transform, ...] = MOVES, **division: int
) -> list[Batch]:
    return list(train_batches(MASKS.open(), moves, seed=seed, batch_size=8, start=start, stop=stop, **division))


@pytest.mark.parametrize("moves", [MOVES, (), (Unlabelled(),)])  # several are made at once where nothing is drawn
def test_batches_do_not_depend_on_where_the_run_starts(moves: tuple[Transform, ...]) -> None:
    whole = train(stop=19, moves=moves)
    assert len(whole) == 19
    for start in (1, 4, 8, 13):
        assert equal(train(start, stop=19, moves=moves), whole[start:])
    assert equal(train(stop=4, moves=moves), whole[:4])
    assert train(start=9, moves=moves) == []


def test_batches_depend_on_the_seed_and_on_their_number() -> None:
    whole, other = train(), train(seed=4)
    images = {batch["image"].tobytes() for batch in whole + other}
    assert len(images) == 18


@pytest.mark.parametrize("count", [2, 4])
def test_processes_hold_the_rows_of_one_batch(count: int) -> None:
    parts = [train(rows=rows) for rows in np.split(np.arange(8), count)]
    assert all(batch["image"].shape == (8 // count, 10, 12, 3) for part in parts for batch in part)
    joined = [
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    ]
    assert equal(joined, train())


def test_workers_change_nothing() -> None:
    assert equal(train(start=2, workers=2), train(start=2))


def test_batches_outlive_the_workers_that_make_them(capsys: pytest.CaptureFixture[str]) -> None:
    feed = train_batches(MASKS.open(), MOVES, seed=3, batch_size=8, start=0, stop=30, workers=2)
    first = next(feed)
    for worker in multiprocessing.active_children():
        worker.terminate()
    found = [first, *feed]
    assert equal(found, list(train_batches(MASKS.open(), MOVES, seed=3, batch_size=8, start=0, stop=30)))
    assert "going on without them" in capsys.readouterr().err


def test_an_epoch_is_a_permutation_and_the_next_another() -> None:
    size, batch_size = 30, 4
    steps = size * 3 // batch_size + 1
    feed = train_batches(Numbered(size), (), seed=0, batch_size=batch_size, start=0, stop=steps)
    order = np.concatenate([batch["label"] for batch in feed])
    epochs = [order[e * size : (e + 1) * size] for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(size))
        assert not np.array_equal(epoch, np.arange(size))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


def test_an_example_is_augmented_anew_in_every_epoch() -> None:
    examples = FakeLabels(height=8, width=8, size=1).open()
    feed = list(train_batches(examples, (Photometric(),), seed=0, batch_size=4, start=0, stop=2))
    rows = {row.tobytes() for batch in feed for row in batch["image"]}
    assert len(rows) == 8


def test_batches_are_plain_arrays_of_what_stacks() -> None:
    (batch,) = train_batches(Numbered(5), (), seed=0, batch_size=4, start=0, stop=1)
    assert set(batch) == {"image", "label"}  # boxes, labels and captions differ in length
    (moved,) = train(stop=1)
    assert moved["image"].dtype == moved["mask"].dtype == np.uint8
    for array in [*batch.values(), *moved.values()]:
        assert type(array) is np.ndarray
        assert array.flags.c_contiguous


@pytest.mark.parametrize(("size", "batch_size", "count"), [(23, 8, 1), (23, 8, 2), (23, 8, 4), (16, 8, 2), (3, 8, 4)])
def test_evaluation_reads_every_example_once_in_order(size: int, batch_size: int, count: int) -> None:
    parts = [
        list(batches.test_batches(Numbered(size), (), batch_size=batch_size, rows=rows))
        for rows in np.split(np.arange(batch_size), count)
    ]
    steps = [{key: np.concatenate([p[key] for p in step]) for key in step[0]} for step in zip(*parts, strict=True)]
    assert len(steps) == -(-size // batch_size)
    assert all(batch["image"].shape == (batch_size, 2, 2, 1) for batch in steps)
    valid = np.concatenate([batch["valid"] for batch in steps])
    labels = np.concatenate([batch["label"] for batch in steps])
    assert valid.dtype == bool
    assert valid.sum() == size
    assert labels[valid].tolist() == list(range(size))
    assert not labels[~valid].any()


def test_what_fills_the_last_batch_is_zero_and_ignored() -> None:
    *_, last = batches.test_batches(MASKS.open(), (CenterCrop(10, 12),), batch_size=8)
    assert last["valid"].tolist() == [True] * 7 + [False]
    assert not last["image"][7].any()
    assert (last["mask"][7] == IGNORE).all()
    assert last["image"][:7].any(axis=(1, 2, 3)).all()


def test_evaluation_repeats_itself() -> None:
    assert equal(*(list(batches.test_batches(MASKS.open(), MOVES, batch_size=4)) for _ in range(2)))


def test_element_is_what_a_batch_has_without_its_first_axis() -> None:
    transforms = (CenterCrop(7, 5),)
    found = element(MASKS.open(), transforms)
    (batch,) = train_batches(MASKS.open(), transforms, seed=0, batch_size=2, start=0, stop=1)
    assert found == {"image": ((7, 5, 3), np.dtype("uint8")), "mask": ((7, 5), np.dtype("uint8"))}
    assert found == {key: (value.shape[1:], value.dtype) for key, value in batch.items()}
    assert set(element(Numbered(4), ())) == {"image", "label"}


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_of_different_sizes_do_not_stack(workers: int) -> None:
    with pytest.raises(UserError, match=r"image: the sizes in a batch differ \(20x30x3, 21x30x3, .*RandomScaleCrop"):
        list(train_batches(Sizes(), (), seed=0, batch_size=4, start=0, stop=1, workers=workers))
    if not workers:
        crop = (CenterCrop(16, 16),)
        (batch,) = train_batches(Sizes(), crop, seed=0, batch_size=4, start=0, stop=1)
        assert batch["mask"].shape == (4, 16, 16)
        assert len(list(batches.test_batches(Sizes(), (), batch_size=1))) == 4  # one at a time, any size will do


def test_a_pipeline_is_a_value() -> None:
    pipeline = Pipeline(source=MASKS, transforms=MOVES)
    assert pipeline == dataclasses.replace(pipeline)
    assert hash(pipeline) == hash(Pipeline(MASKS, MOVES))
    assert pipeline != dataclasses.replace(pipeline, workers=1)
