"""Stacked digits: a thousand equal modes that are functions of (seed, i), and the measure that counts them."""

import dataclasses
import functools
import json
import math
import pickle
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.config import codec
from jaxgen.data import batches
from jaxgen.data.digits import Digits
from jaxgen.data.source import Examples, Source, checked
from jaxgen.data.stacked import StackedDigits
from jaxgen.diffusion.sampling_schedules import SamplingSchedule
from jaxgen.errors import UserError
from jaxgen.metrics import fidelity
from jaxgen.metrics.stacked_modes import StackedModes
from jaxgen.metrics.view import Metric, Samples
from jaxgen.pictures.pixels import to_float

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


@functools.cache
def stacked(source: StackedDigits) -> tuple[np.ndarray, np.ndarray]:
    examples = source.open()
    rows = [examples[i] for i in range(len(examples))]
    return np.stack([row["image"] for row in rows]), np.stack([row["label"] for row in rows])


@functools.cache
def digits(split: Literal["train", "test"]) -> dict[bytes, int]:
    examples = Digits(split).open()
    return {examples[i]["image"].tobytes(): int(examples[i]["label"]) for i in range(len(examples))}


# Data.


@pytest.mark.parametrize("split", SPLITS)
def test_channels_are_digits_of_the_split_whose_classes_are_the_label(split: Literal["train", "test"]) -> None:
    images, labels = stacked(StackedDigits(split=split, size=500))
    known = digits(split)
    for image, label in zip(images, labels, strict=True):
        assert [known[image[:, :, c].tobytes()] for c in range(3)] == [label // 100, label // 10 % 10, label % 10]
    assert (images.dtype, labels.dtype, images.shape) == (np.uint8, np.int32, (500, 8, 8, 3))


def test_modes_are_equally_likely_and_so_are_the_digits_of_each_class() -> None:
    images, labels = stacked(StackedDigits(size=20_000))
    squares = (np.bincount(labels, minlength=1000) - 20) ** 2 / 20  # χ² of 999 degrees of freedom
    assert abs(squares.sum() - 999) < 4 * math.sqrt(2 * 999)
    names = [channel.tobytes() for channel in np.moveaxis(images, -1, 1).reshape(-1, 8, 8)]
    counts = dict.fromkeys(digits("train"), 0)
    for name in names:
        counts[name] += 1
    for k in range(10):
        one = np.array([n for name, n in counts.items() if digits("train")[name] == k])
        expected = one.mean()
        square = ((one - expected) ** 2 / expected).sum()
        assert abs(square - len(one)) < 5 * math.sqrt(2 * len(one)), k


@pytest.mark.parametrize("split", SPLITS)
def test_examples_are_functions_of_seed_and_index(split: Literal["train", "test"]) -> None:
    source = StackedDigits(split=split, size=500)
    images, labels = stacked(source)
    for size in (1, 100, 1000):
        fewer, same = stacked(dataclasses.replace(source, size=size))
        n = min(size, 500)
        assert np.array_equal(fewer[:n], images[:n])
        assert np.array_equal(same[:n], labels[:n])
    for other in (dataclasses.replace(source, seed=1), StackedDigits(split=SPLITS[split == "train"], size=500)):
        assert (stacked(other)[1] == labels).mean() < 0.02


def test_stacks_travel_as_pictures_do() -> None:
    source = StackedDigits(size=300)
    raw = source.open()
    assert isinstance(source, Source)
    assert isinstance(raw, Examples)
    assert (raw.classes[0], raw.classes[255], raw.classes[-1], len(raw.classes)) == ("000", "255", "999", 1000)
    (batch,) = batches.train_batches(checked(raw), (), seed=0, batch_size=16, start=3, stop=4)
    assert {name: value.shape for name, value in batch.items()} == {"image": (16, 8, 8, 3), "label": (16,)}
    assert np.array_equal(pickle.loads(pickle.dumps(raw))[7]["image"], raw[7]["image"])
    assert codec.decode(codec.encode(source)) == source
    with pytest.raises(IndexError):
        raw[300]
    with pytest.raises(UserError, match=r"StackedDigits\.size is 0; it must be at least 1"):
        StackedDigits(size=0)


# The measure.


@dataclasses.dataclass
class Gallery:
    """A view of a generator whose samples are given."""

    image: np.ndarray
    classes: tuple[str, ...] = ()
    protocol: dict[str, Any] = dataclasses.field(default_factory=lambda: {"seed": 3})

    def samples(self, n: int, like: str | None = None) -> Samples:
        return Samples(self.image[:n], None)

    def rows(self, split: Literal["train", "test"]) -> Samples:
        raise NotImplementedError

    def map(self, f: Callable[[jax.Array], jax.Array], images: np.ndarray) -> np.ndarray:
        size = 3000
        run = jax.jit(f)
        whole = images[np.arange(-(-len(images) // size) * size) % len(images)]
        return np.concatenate([run(part) for part in whole.reshape(-1, size, *images.shape[1:])])[: len(images)]

    def log_likelihood(
        self, images: np.ndarray, label: np.ndarray | None, grid: SamplingSchedule, probes: int
    ) -> np.ndarray:
        raise NotImplementedError


def pictures(n: int, split: Literal["train", "test"] = "train") -> np.ndarray:
    return np.asarray(to_float(jnp.asarray(stacked(StackedDigits(split=split, size=n))[0])))


def test_real_triples_score_the_floor() -> None:
    measure = StackedModes(samples=5000)
    assert isinstance(measure, Metric)
    found = measure.measure(Gallery(pictures(5000)))
    assert set(found) == {"modes", "modes_real", "kl", "kl_real", "kl_floor", "protocol"}
    assert found["kl_floor"] == 999 / 10_000
    for name in ("kl", "kl_real"):
        assert 0.85 * found["kl_floor"] < found[name] < 1.2 * found["kl_floor"]
    assert found["kl"] != found["kl_real"]  # the real triples are others than the data's
    assert min(found["modes"], found["modes_real"]) >= 980  # 1000·e^-5 are missed by chance
    assert json.loads(json.dumps(found)) == found
    assert found["protocol"] == {
        "seed": 3,
        "triples": {"samples": 5000, "of": 1000, "classifier": "digits_cnn", "real_seed": 1},
    }


@pytest.mark.by_hand
def test_26_000_real_triples_cover_all_modes() -> None:
    found = StackedModes().measure(Gallery(pictures(26_000, "test")))
    assert found["modes_real"] == found["modes"] == 1000
    assert found["kl_real"] < 1.1 * found["kl_floor"]


def test_a_collapsed_generator_covers_few() -> None:
    labels = stacked(StackedDigits(size=500))[1]
    few = np.resize(pictures(500)[:7], (500, 8, 8, 3))
    found = StackedModes(samples=500).measure(Gallery(few))
    assert found["modes"] == len(set(labels[:7]))
    shares = np.bincount(np.resize(labels[:7], 500), minlength=1000)
    assert found["kl"] == pytest.approx(fidelity.kl_to_uniform(shares), rel=1e-12)  # each is read as what it is
    assert found["modes_real"] > 300


@pytest.mark.parametrize("shape", [(4, 8, 8, 1), (4, 16, 16, 3), (4, 2)])
def test_other_pictures_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=f"8x8x3, not {'x'.join(map(str, shape[1:]))}; remove it"):
        StackedModes(samples=4).measure(Gallery(np.zeros(shape, np.float32)))


def test_no_samples_are_refused() -> None:
    with pytest.raises(UserError, match=r"StackedModes\.samples is 0"):
        StackedModes(samples=0)
    with pytest.raises(UserError, match="hold NaN or infinity"):
        StackedModes(samples=2).measure(Gallery(np.full((2, 8, 8, 3), np.nan, np.float32)))
