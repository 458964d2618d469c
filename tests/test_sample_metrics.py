"""Metrics of samples: what real data, copies, noise and collapsed generators score, and the features beneath."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small
from processes import ROOT

from jaxgen import evaluation
from jaxgen.config import codec, files
from jaxgen.data.digits import Digits
from jaxgen.data.mixture import GridOfGaussians, Ring, Spiral
from jaxgen.data.source import Source
from jaxgen.errors import UserError
from jaxgen.features import digits_cnn
from jaxgen.features.digits_cnn import DigitsCnn
from jaxgen.features.inception import Inception
from jaxgen.features.net import Features
from jaxgen.features.pixels import Pixels
from jaxgen.metrics.class_accuracy import DIGITS, ClassAccuracy
from jaxgen.metrics.distribution import Distribution
from jaxgen.metrics.likelihood import Likelihood
from jaxgen.metrics.modes import Modes
from jaxgen.metrics.view import Metric, Samples, as_shown
from jaxgen.pictures.pixels import to_float
from jaxgen.program import Program
from jaxgen.sampling import balanced, proportional, spread


@dataclasses.dataclass
class Given:
    """A view of a generator whose samples are given."""

    generated: Samples
    train: Samples
    test: Samples
    classes: tuple[str, ...] = DIGITS
    protocol: dict[str, Any] = dataclasses.field(default_factory=lambda: {"seed": 3})

    def samples(self, n: int, like: str | None = None) -> Samples:
        return first(self.generated, n)

    def rows(self, split: Literal["train", "test"]) -> Samples:
        return {"train": self.train, "test": self.test}[split]

    def map(self, f: Callable[[jax.Array], jax.Array], images: np.ndarray) -> np.ndarray:
        size = min(len(images), 500)
        whole = images[np.arange(-(-len(images) // size) * size) % len(images)]
        rows = [jax.jit(f)(part) for part in whole.reshape(-1, size, *images.shape[1:])]
        return np.concatenate(rows)[: len(images)]

    def log_likelihood(
        self,
        images: np.ndarray,
        label: np.ndarray | None,
        *,
        steps: int,
        sigma_min: float | None,
        sigma_max: float | None,
        probes: int,
    ) -> np.ndarray:
        # That of a standard normal, whatever the steps.
        flat = images.reshape(len(images), -1)
        return -0.5 * (flat**2 + math.log(2 * math.pi)).sum(1)


def first(samples: Samples, n: int) -> Samples:
    return Samples(samples.image[:n], None if samples.label is None else samples.label[:n])


@functools.cache
def real(source: Source) -> Samples:
    rows = list(source.open())
    image = np.stack([row["image"] for row in rows])
    return Samples(np.asarray(to_float(jnp.asarray(image))), np.stack([row["label"] for row in rows]))


TRAIN, TEST = Digits(split="train"), Digits(split="test")
DIGITS_CNN = Distribution(features=DigitsCnn(), samples=1437)


def digits(generated: Samples) -> Given:
    return Given(generated, real(TRAIN), real(TEST))


def noise(n: int) -> Samples:
    image = np.random.default_rng(0).uniform(-1, 1, (n, 8, 8, 1)).astype(np.float32)
    return Samples(image, np.arange(n, dtype=np.int32) % 10)


# Features.


def test_the_shipped_classifier_is_as_good_as_its_docstring_says() -> None:
    test = real(TEST)
    logits = digits(test).map(DigitsCnn().classifier(), test.image)
    accuracy = (logits.argmax(-1) == test.label).mean()
    assert f"Accuracy on the test split: {accuracy:.4f}" in digits_cnn.__doc__
    assert accuracy > 0.99
    assert digits_cnn.WEIGHTS.stat().st_size < 300_000


def test_its_features_are_what_its_last_layer_reads() -> None:
    images = jnp.asarray(real(TEST).image[:7])
    features, logits = DigitsCnn().extractor()(images), DigitsCnn().classifier()(images)
    score = digits_cnn.read(digits_cnn.WEIGHTS)["params"]["head"]["score"]
    assert features.shape == (7, 96)
    np.testing.assert_allclose(features @ score["kernel"] + score["bias"][None], logits, atol=1e-4)
    assert float(features.min()) == 0 < float(features.max())
    with pytest.raises(UserError, match="reads pictures of 8x8x1, not 8x8x3"):
        DigitsCnn().extractor()(jnp.zeros((2, 8, 8, 3)))


def test_its_weights_are_those_of_the_configs_net_and_come_back_as_written(tmp_path: pathlib.Path) -> None:
    assert files.load(ROOT / "configs" / "classification" / "digits_cnn.py").objective.net.module == digits_cnn.NET
    variables, copy = digits_cnn.read(digits_cnn.WEIGHTS), tmp_path / "copy.safetensors"
    digits_cnn.write(variables, copy)
    jax.tree.map(np.testing.assert_array_equal, digits_cnn.read(copy), variables)
    with pytest.raises(UserError, match="not the variables"):
        digits_cnn.write({"params": variables["params"]}, copy)


def test_pixels_are_the_samples_flattened() -> None:
    images = np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1)
    extract = Pixels().extractor()
    assert np.array_equal(extract(jnp.asarray(images)), images.reshape(2, 12))
    assert extract(jnp.zeros((5, 2))).shape == (5, 2)
    assert all(isinstance(features, Features) for features in (Pixels(), DigitsCnn()))


# Distribution.


def test_repeating_the_training_data_scores_the_baseline_and_no_better() -> None:
    found = DIGITS_CNN.measure(digits(real(TRAIN)))
    names = ["fd_digits_cnn", "kid_digits_cnn", "precision", "recall", "density", "coverage"]
    assert set(found) == {*names, *(f"{name}_floor" for name in names), "protocol"}
    for name in names:
        np.testing.assert_allclose(found[name], found[f"{name}_floor"], rtol=1e-9)
    assert found["fd_digits_cnn"] > 1e-3
    assert found["precision"] > 0.8
    assert json.loads(json.dumps(found)) == found
    assert found["protocol"] == {
        "seed": 3,
        "fd_digits_cnn": {
            "features": "digits_cnn",
            "samples": 1437,
            "labels": "as in test",
            "reference": "test",
            "reference_samples": 360,
            "floor_samples": 1437,
            "rounded_to_bits": 8,
            "neighbours": 5,
            "kid": "whole sets",
        },
    }


def test_the_reference_itself_scores_best_and_noise_scores_worst() -> None:
    same = DIGITS_CNN.measure(digits(real(TEST)))
    assert abs(same["fd_digits_cnn"]) < 1e-6
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    worst = DIGITS_CNN.measure(digits(noise(360)))
    assert worst["fd_digits_cnn"] > 20 * worst["fd_digits_cnn_floor"]
    assert worst["kid_digits_cnn"] > 20 * abs(worst["kid_digits_cnn_floor"])
    assert worst["coverage"] < 0.1 < 0.9 < worst["coverage_floor"]


def test_the_other_reference_swaps_the_splits() -> None:
    pixels = Distribution(features=Pixels(), samples=300, reference="train", kid_size=100, kid_subsets=7)
    found = pixels.measure(digits(real(TEST)))
    assert found["protocol"]["fd_pixels"] | {"neighbours": 5} == {
        "features": "pixels", "samples": 300, "labels": "as in train", "reference": "train",
        "reference_samples": 1437, "floor_samples": 300, "rounded_to_bits": 8, "neighbours": 5,
        "kid": "7 subsets of 100",
    }  # fmt: skip


def test_the_baseline_of_few_samples_is_drawn_from_all_of_the_split() -> None:
    train = real(TRAIN)
    order = np.argsort(train.label, kind="stable")
    by_class = Samples(train.image[order], train.label[order])
    few = dataclasses.replace(DIGITS_CNN, samples=100)
    found = few.measure(Given(by_class, by_class, real(TEST)))  # the samples are all of one class
    assert found["protocol"]["fd_digits_cnn"]["floor_samples"] == 100
    assert found["fd_digits_cnn_floor"] < found["fd_digits_cnn"] / 5
    assert found["recall_floor"] > 0.5 > found["recall"]


@dataclasses.dataclass
class Perfect(Given):
    """A view of a generator that is asked for classes and gives each exactly, of data with classes 9 to 1."""

    def samples(self, n: int, like: str | None = None) -> Samples:
        asked = balanced(np.arange(n), 2) if like is None else proportional(self.rows(like).label, n)
        return points(asked, 9)


def points(label: np.ndarray, seed: int) -> Samples:
    spread = np.random.default_rng(seed).normal(size=(len(label), 2))
    return Samples((np.where(label[:, None] == 0, -0.5, 0.5) + 0.05 * spread).astype(np.float32), label)


def test_a_perfect_generator_of_uneven_classes_scores_the_baseline() -> None:
    nine_to_one = (np.arange(1000) % 10 == 0).astype(np.int32)
    train, test = points(nine_to_one, 3), points(nine_to_one, 4)
    view = Perfect(train, train, test, classes=("a", "b"))
    found = Distribution(features=Pixels(), samples=1000).measure(view)
    assert found["fd_pixels"] < 5e-4  # classes in turn: 0.4
    assert found["protocol"]["fd_pixels"]["labels"] == "as in test"


def test_samples_like_a_split_have_its_classes_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = small.diffusion()
    program = Program.of(experiment)
    asked = []

    def draw_batches(*args: Any, condition: dict[str, np.ndarray], **how: Any) -> Iterator[np.ndarray]:
        asked.append(condition["label"])
        yield np.zeros((len(condition["label"]), 1), np.float32)

    monkeypatch.setattr(evaluation, "draw_batches", draw_batches)
    opened = experiment.train.source.open()
    rare = [i for i in range(len(opened)) if opened[i]["label"] == 0][:1]
    common = [i for i in range(len(opened)) if opened[i]["label"] == 1]
    uneven = evaluation._Part(opened, np.array(rare + common))
    view = evaluation.SampleEvaluator(program, program.shapes, opened, uneven)
    n = 10 * len(uneven)
    assert np.bincount(view.samples(n, like="test").label).tolist() == [10, 10 * len(common)]
    assert view.samples(8).label.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    labels = [int(opened[i]["label"]) for i in range(len(opened))]
    whole = view.samples(len(opened), like="train").label
    assert np.bincount(whole).tolist() == np.bincount(labels).tolist()
    assert [len(label) for label in asked] == [n, 8, len(opened)]


@pytest.mark.parametrize("n", [1000, 100, 64, 2500])
def test_labels_are_asked_for_in_their_proportions_and_every_order_of_the_data(n: int) -> None:
    shares = np.array([0.6, 0.3, 0.09, 0.01])
    labels = np.repeat(np.arange(4), (shares * 1000).astype(int)).astype(np.int32)  # sorted by class, as folders are
    asked = proportional(labels, n)
    assert (asked.dtype, len(asked)) == (np.int32, n)
    assert np.abs(np.bincount(asked, minlength=4) - shares * n).max() <= 1
    assert np.array_equal(proportional(labels[::-1], n), asked)
    assert len(set(asked[: n // 4].tolist())) > 1
    assert np.array_equal(np.sort(spread(7, 7)), np.arange(7))


def test_steps_finer_than_a_file_holds_change_nothing() -> None:
    every = (np.arange(256, dtype=np.float32) / np.float32(127.5) - 1).reshape(1, 16, 16, 1)
    np.testing.assert_allclose(as_shown(every), every, atol=1e-6)
    finer = every + np.random.default_rng(0).uniform(-0.49, 0.49, every.shape).astype(np.float32) / 127.5
    assert np.array_equal(as_shown(finer), as_shown(every))
    assert as_shown(np.float32([[[[-7.0], [7.0]]]])).ravel().tolist() == [-1, 1]
    points = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    assert as_shown(points) is points


def test_only_inceptions_distance_is_called_fid() -> None:
    @dataclasses.dataclass(frozen=True)
    class Flat(Features):
        called: str

        @property
        def name(self) -> str:
            return self.called

        def extractor(self) -> Callable[[jax.Array], jax.Array]:
            return Pixels().extractor()

    assert Inception(weights="").metric == "fid"
    for name, expected in (("flat", "fd_flat"), ("inception2", "fd_inception2")):
        found = Distribution(features=Flat(name), samples=20).measure(digits(noise(20)))
        assert {key for key in found if key.startswith("f")} == {expected, f"{expected}_floor"}
        assert expected in found["protocol"]


def test_points_are_measured_as_they_are() -> None:
    train, test, generated = (real(Ring(size=500, seed=seed)) for seed in range(3))
    view = Given(generated, train, test, classes=tuple("12345678"))
    found = Distribution(features=Pixels(), samples=500).measure(view)
    assert found["protocol"]["fd_pixels"]["rounded_to_bits"] is None
    assert found["fd_pixels"] < 0.02
    assert found["precision"] > 0.9


@pytest.mark.parametrize("metric", [DIGITS_CNN, ClassAccuracy(), Modes(source=Ring())])
def test_samples_that_are_not_numbers_are_refused(metric: Metric) -> None:
    broken = noise(50)
    broken.image[3, 2, 1], broken.image[7] = np.nan, np.inf
    with pytest.raises(UserError, match="2 of 50 samples hold NaN or infinity"):
        metric.measure(digits(broken))


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(UserError, match="5 generated examples have no neighbour number 5"):
        dataclasses.replace(DIGITS_CNN, samples=5).measure(digits(noise(50)))
    with pytest.raises(UserError, match="samples is 1; it must be at least 2"):
        Distribution(features=Pixels(), samples=1)
    for metric in (ClassAccuracy, functools.partial(Modes, source=Ring())):
        with pytest.raises(UserError, match="samples is 0; it must be at least 1"):
            metric(samples=0)


# Modes.


@pytest.mark.parametrize("mixture", [Ring(seed=5, size=2500), GridOfGaussians(seed=5, size=2500)])
def test_modes_of_the_data_themselves(mixture: Ring | GridOfGaussians) -> None:
    view = Given(real(mixture), real(mixture), real(mixture), classes=mixture.open().classes)
    found = Modes(source=dataclasses.replace(mixture, seed=0)).measure(view)
    assert found["modes"] == len(mixture.centres())
    assert abs(found["high_quality"] - 0.9889) < 0.008
    assert abs(found["std_ratio"] - 1) < 0.05
    assert abs(found["high_quality_floor"] - 0.9889) < 0.008
    assert abs(found["std_ratio_floor"] - 1) < 0.05
    assert 0 < found["kl"] < 3 * found["kl_floor"]
    assert json.loads(json.dumps(found)) == found
    assert found["protocol"] == {
        "seed": 3,
        "modes": {"samples": 2500, "of": len(mixture.centres()), "radius_in_std": 3.0},
    }


def test_overlapping_modes_are_compared_with_what_the_data_score() -> None:
    spiral = Spiral(seed=5, size=4000)
    found = Modes(source=Spiral(), samples=4000).measure(Given(real(spiral), real(spiral), real(spiral)))
    assert found["std_ratio_floor"] < 0.9  # a neighbour's points are not counted
    for name in ("high_quality", "std_ratio"):
        np.testing.assert_allclose(found[name], found[f"{name}_floor"], atol=0.02)


def test_modes_of_a_collapsed_generator() -> None:
    points = np.repeat(Ring().centres()[[2, 5]], 50, axis=0).astype(np.float32)
    view = Given(Samples(points, None), real(Ring(size=10)), real(Ring(size=10)))
    found = Modes(source=Ring(), samples=100).measure(view)
    assert (found["modes"], found["high_quality"]) == (2, 1)
    assert found["std_ratio"] < 1e-3
    np.testing.assert_allclose(found["kl"], np.log(4))


def test_modes_of_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="Ring; measure pictures with Distribution"):
        Modes(source=Ring()).measure(digits(noise(50)))


# ClassAccuracy.


def test_class_accuracy_of_real_digits_is_the_classifiers_accuracy() -> None:
    test = real(TEST)
    found = ClassAccuracy(samples=360).measure(digits(test))
    assert found["readback_accuracy"] == found["readback_real"] > 0.99
    np.testing.assert_allclose(np.mean(list(found["readback_per_class"].values())), found["readback_real"], atol=0.01)
    assert json.loads(json.dumps(found)) == found
    assert found["protocol"] == {"seed": 3, "readback": {"samples": 360, "classifier": "digits_cnn"}}
    wrong = ClassAccuracy(samples=360).measure(digits(Samples(test.image, (test.label + 1) % 10)))
    assert wrong["readback_accuracy"] < 0.01
    assert wrong["readback_real"] == found["readback_real"]


def test_class_accuracy_needs_digits_and_labels() -> None:
    with pytest.raises(UserError, match="asked for a class"):
        ClassAccuracy().measure(digits(Samples(noise(20).image, None)))
    view = dataclasses.replace(digits(noise(20)), classes=("cat", "dog"))
    with pytest.raises(UserError, match=r"not cat, dog"):
        ClassAccuracy().measure(view)


@pytest.mark.parametrize("metric", [DIGITS_CNN, ClassAccuracy(), Modes(source=Ring())])
def test_metrics_survive_as_json(metric: Metric) -> None:
    assert isinstance(metric, Metric)
    assert codec.decode(json.loads(json.dumps(codec.encode(metric)))) == metric


def test_the_likelihood_of_points_comes_with_that_of_the_data():
    source = Ring(std=1.0, radius=1e-6, size=4000)  # a standard normal, for which the fake view's model takes all
    points = real(source)
    found = Likelihood(rows=2000, source=source).measure(Given(points, points, points))
    np.testing.assert_allclose(found["log_likelihood"], found["log_likelihood_true"], atol=1e-3)
    np.testing.assert_allclose(found["log_likelihood"], -math.log(2 * math.pi * math.e), atol=0.1)
    assert found["protocol"]["likelihood"] == {"rows": 2000, "steps": 64, "probes": "exact"}


def test_the_likelihood_of_pictures_is_in_bits_of_their_bytes():
    digits = real(Digits(split="test"))
    found = Likelihood(rows=50).measure(Given(digits, digits, digits))
    # log2 of a normal density at about 0.9 from its middle, and of 127.5 bytes to the unit.
    assert 7.5 < found["bits_per_dim"] < 9.0
