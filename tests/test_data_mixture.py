"""Mixtures: known centres, examples that are functions of (seed, i), and points in batches as pictures are."""

import dataclasses
import pickle

import numpy as np
import pytest

from jaxgen.config import codec
from jaxgen.data import batches
from jaxgen.data.augment import Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.mixture import GridOfGaussians, Mixture, Ring, Spiral
from jaxgen.data.source import Examples, Source, checked
from jaxgen.errors import UserError

MIXTURES = [Ring(size=4000), GridOfGaussians(size=4000), Spiral(size=4000)]
each = pytest.mark.parametrize("mixture", MIXTURES, ids=lambda m: type(m).__name__)


def arrays(mixture: Mixture) -> tuple[np.ndarray, np.ndarray]:
    rows = list(mixture.open())
    return np.stack([row["image"] for row in rows]), np.stack([row["label"] for row in rows])


@each
def test_points_lie_around_the_centre_of_their_mode(mixture: Mixture) -> None:
    points, labels = arrays(mixture)
    centres = mixture.centres()
    away = (points - centres[labels]) / mixture.std
    assert (points.dtype, labels.dtype) == (np.float32, np.int32)
    assert np.abs(away.mean(0)).max() < 4 / np.sqrt(4000)
    np.testing.assert_allclose(np.cov(away.T), np.eye(2), atol=0.1)
    share = np.bincount(labels, minlength=len(centres)) * len(centres) / 4000
    assert np.abs(share - 1).max() < 5 * np.sqrt(len(centres) / 4000)


@each
def test_examples_are_functions_of_seed_and_index(mixture: Mixture) -> None:
    points, labels = arrays(mixture)
    for size in (1, 1000, 5000):
        fewer, same = arrays(dataclasses.replace(mixture, size=size))
        n = min(size, 4000)
        assert np.array_equal(fewer[:n], points[:n])
        assert np.array_equal(same[:n], labels[:n])
    other, _ = arrays(dataclasses.replace(mixture, seed=1))
    assert not set(map(tuple, other)) & set(map(tuple, points))


@each
def test_points_travel_as_pictures_do(mixture: Mixture) -> None:
    assert isinstance(mixture, Source)
    raw = mixture.open()
    examples = checked(raw)
    assert isinstance(raw, Examples)
    assert raw.classes[:2] == ("mode 0", "mode 1")
    assert len(raw.classes) == len(mixture.centres())
    assert batches.element(examples, ()) == {"image": ((2,), np.float32), "label": ((), np.int32)}
    assert batches.element(examples, (Unlabelled(),)) == {"image": ((2,), np.float32)}
    (batch,) = batches.train_batches(examples, (Unlabelled(),), seed=0, batch_size=16, start=3, stop=4)
    assert {name: value.shape for name, value in batch.items()} == {"image": (16, 2)}
    *_, last = batches.test_batches(examples, (), batch_size=96)
    assert last["image"].shape == (96, 2)
    assert last["valid"].sum() == 4000 % 96
    copy = pickle.loads(pickle.dumps(raw))
    assert np.array_equal(copy[7]["image"], raw[7]["image"])
    with pytest.raises(ValueError, match="read-only"):
        raw[0]["image"][0] = 1
    with pytest.raises(IndexError):
        raw[4000]


@each
def test_it_survives_as_json(mixture: Mixture) -> None:
    pipeline = Pipeline(source=mixture, transforms=(Unlabelled(),))
    assert codec.decode(codec.encode(pipeline)) == pipeline


def test_ring_and_grid_are_pacgans() -> None:
    ring, grid = Ring(), GridOfGaussians()
    np.testing.assert_allclose(np.linalg.norm(ring.centres(), axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(np.diff(ring.centres(), axis=0), axis=1), 2 * np.sin(np.pi / 8))
    assert sorted(map(tuple, grid.centres())) == [(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]
    assert (len(ring.centres()), ring.std, grid.std, ring.size) == (8, 0.01, 0.05, 100_000)


def test_spiral_has_two_arms_of_modes_at_even_distances() -> None:
    spiral = Spiral(radius=2.0, std=0.06)
    centres = spiral.centres()
    first, second = centres[:100], centres[100:]
    assert np.array_equal(second, -first)
    steps = np.linalg.norm(np.diff(first, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.02
    assert steps.max() < 2 * spiral.std  # the modes of an arm run together
    np.testing.assert_allclose(np.linalg.norm(first[-1]), 2.0)
    apart = np.linalg.norm(first[:, None] - second[None], axis=-1).min()
    assert apart > 4 * spiral.std  # and the arms do not
    with pytest.raises(UserError, match="even number"):
        Spiral(modes=81)


def test_batches_of_a_table_are_those_of_its_rows():
    class Rows:
        """The same examples, one at a time."""

        def __init__(self, examples):
            self.classes, self._examples = examples.classes, examples

        def __len__(self):
            return len(self._examples)

        def __getitem__(self, index):
            return self._examples[index]

    table = Ring(size=50).open()
    for transforms in ((), (Unlabelled(),)):
        made = [
            list(batches.train_batches(source, transforms, seed=3, batch_size=16, start=1, stop=6))
            for source in (table, Rows(table))
        ]
        for quick, slow in zip(*made, strict=True):
            assert quick.keys() == slow.keys()
            for name in quick:
                np.testing.assert_array_equal(quick[name], slow[name])
