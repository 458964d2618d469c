"""Augmentation by generated samples: generators whose effect is known before any training."""

import argparse
import dataclasses
import functools
import importlib
import json
import pathlib

import jax
import numpy as np
import pytest
import small
from scipy import stats

from jaxgen.data.digits import Digits
from jaxgen.data.kshot import KShot
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.objectives.classification import Classification

ONE = jax.devices()[:1]


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("augmentation")


@pytest.fixture
def kshot(benchmark):
    return importlib.import_module("kshot_arms")


def digits(steps: int = 60) -> Experiment:
    """A linear classifier of digits."""
    made = small.classification()
    net = Learner(module=small.Linear(classes=10), optimizer=made.objective.net.optimizer)
    data = {side: dataclasses.replace(getattr(made, side), source=Digits(side)) for side in ("train", "test")}
    return dataclasses.replace(
        made, objective=Classification(net=net), steps=steps, batch_size=32, test_batch_size=180, **data
    )


@pytest.fixture
def drawn(kshot):
    """Shots of digits, three times as many others, and the test split."""
    return read(kshot.Rows)


@functools.cache
def read(rows):
    sources = (KShot(source=Digits(), k=4), KShot(source=Digits(), k=12, after=4), Digits("test"))
    return [rows.held(source.open(), ()) for source in sources]


def shares(rows) -> dict[tuple[bytes, int], float]:
    """How often each picture is drawn with each label."""
    found: dict[tuple[bytes, int], float] = {}
    for image, label in zip(rows.image, rows.label, strict=True):
        key = image.tobytes(), int(label)
        found[key] = found.get(key, 0) + 1 / len(rows)
    return found


# --- arms whose law is known ------------------------------------------------------------------------------------------


def test_a_generator_that_draws_from_the_shots_is_real_duplicated(kshot, drawn):
    shots, new, _ = drawn
    real, twice = (shares(kshot.arms_of_real(shots, new)[name].rows) for name in ("real", "real + duplicated real"))
    assert twice == pytest.approx(real)
    rng, draws = np.random.default_rng(0), 300
    mean = dict.fromkeys(twice, 0.0)
    for seed in range(draws):
        # Of each class in turn, any of its shots.
        places = [rng.choice(np.flatnonzero(shots.label == i % 10)) for i in range(len(new))]
        arms = kshot.arms_of_generated(shots, shots.take_rows(np.array(places)), seed)
        assert set(shares(arms["generated only"].rows)) <= set(real)
        for key, share in shares(arms["real + generated"].rows).items():
            mean[key] += share / draws
    # Of 160 rows, 12 of each class are drawn from 4 shots: a variance of 12·(1/4)·(3/4) rows.
    error = np.sqrt(12 * 3 / 16 / draws) / 160
    assert max(abs(mean[key] - share) for key, share in twice.items()) < 5 * error


def test_a_generator_of_real_pictures_is_the_ceiling(kshot, drawn):
    shots, new, _ = drawn
    arms = kshot.arms_of_generated(shots, new, 0)
    ceiling = kshot.arms_of_real(shots, new)["real + new real"]
    assert (arms["real + generated"].rows.image == ceiling.rows.image).all()
    assert (arms["real + generated"].rows.label == ceiling.rows.label).all()
    assert not (set(shares(new)) & set(shares(shots)))
    sizes = {name: (len(arm.rows), arm.classical) for name, arm in arms.items()}
    assert sizes == {
        "real + generated": (160, False),
        "real + classical + generated": (160, True),
        "generated only": (120, False),
        "real + generated, labels shuffled": (160, False),
    }


def test_shuffled_labels_are_as_many_of_each_class_beside_the_same_pictures(kshot, drawn):
    shots, new, _ = drawn
    wrong = kshot.arms_of_generated(shots, new, 3)["real + generated, labels shuffled"].rows
    assert (wrong.image == np.concatenate([shots.image, new.image])).all()
    assert (wrong.label[: len(shots)] == shots.label).all()
    assert (np.bincount(wrong.label) == 16).all()
    assert (wrong.label[len(shots) :] == new.label).mean() < 0.3


# --- trainings --------------------------------------------------------------------------------------------------------


def test_a_collapsed_generator_teaches_one_class(kshot, drawn):
    shots, new, test = drawn
    one = new.take_rows(np.flatnonzero(new.label == 3))
    cas = kshot.arms_of_generated(shots, one, 0)["generated only"]
    found = kshot.Classifiers(digits(), shots, test, ONE).accuracy(cas, 0)
    assert found == pytest.approx((test.label == 3).mean())
    assert found == pytest.approx(0.1, abs=0.005)


def test_new_real_pictures_help_and_shuffled_labels_hurt(kshot, drawn):
    shots, new, test = drawn
    classifiers = kshot.Classifiers(digits(200), shots, test, ONE)
    arms = kshot.arms_of_real(shots, new) | kshot.arms_of_generated(shots, new, 0)
    accuracy = {
        name: classifiers.accuracy(arms[name], 0)
        for name in ("real", "real + new real", "real + generated", "real + generated, labels shuffled")
    }
    assert accuracy["real + generated"] == accuracy["real + new real"]  # the same rows and seed: the same bits
    assert accuracy["real + new real"] > accuracy["real"] + 0.03
    assert accuracy["real + generated, labels shuffled"] < accuracy["real"] - 0.03


@pytest.mark.parametrize("seed", [0, 5])
def test_a_trainer_with_a_seed_is_the_program_with_that_seed(kshot, drawn, seed):
    shots = drawn[0]
    trainer = kshot.Trainer.of(digits(4), shots, ONE)
    experiment = dataclasses.replace(digits(4), seed=seed)
    program = kshot.Program.of(experiment, trainer.program.data, ONE)
    state = program.init()
    for batch in program.host_batches(shots):
        state, _ = program.step(state, kshot.put_batch(program.mesh, batch))
    for ours, theirs in zip(*(jax.tree.leaves(s) for s in (trainer.train(shots, seed), state)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


# --- the numbers ------------------------------------------------------------------------------------------------------

# Student's own example, hours of sleep that two drugs gain ten patients (Biometrika 6, 1908): 1.58 in [0.70, 2.46].
SLEEP = ((0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0), (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4))


def test_an_interval_is_students(benchmark):
    low, high = benchmark.interval([b - a for a, b in zip(*SLEEP, strict=True)])
    assert (low, high) == pytest.approx((0.7001142, 2.4598858))
    assert (low, high) == pytest.approx(tuple(stats.ttest_rel(SLEEP[1], SLEEP[0]).confidence_interval(0.95)))
    assert benchmark.interval([0.25, 0.25]) == (0.25, 0.25)
    with pytest.raises(UserError, match="two seeds at least; set --seeds"):
        benchmark.interval([0.1])


def records(k: int = 5) -> list[dict]:
    """The example as accuracies, and a generator that diverged with the last seed."""
    rows = [("", "real", SLEEP[0]), ("", "real + new real", SLEEP[1]), ("gan", "generated only", SLEEP[1][:9])]
    return [
        {"k": k, "seed": seed, "generator": generator, "arm": arm, "accuracy": value}
        for generator, arm, values in rows
        for seed, value in enumerate(values)
    ]


def test_differences_are_paired_by_seed(benchmark):
    real, new, gan = benchmark.summary(records(), 5)
    assert "difference" not in real
    assert (new["difference"], new["low"], new["high"], new["seeds"]) == pytest.approx((1.58, 0.7001142, 2.4598858, 10))
    nine = stats.ttest_rel(SLEEP[1][:9], SLEEP[0][:9]).confidence_interval(0.95)
    assert (gan["seeds"], gan["low"], gan["high"]) == pytest.approx((9, *nine))
    assert benchmark.summary(records(), 6) == []


def test_a_table_and_a_picture_show_each_arm(benchmark, tmp_path):
    rows = benchmark.summary(records(), 5)
    seen = [{"k": 5, "seed": 0, "generator": "gan", "read_back": 0.5, "recall": 0.25, "seconds": 3.0}]
    text = benchmark.lines(rows, seen, 5)
    assert [line.split("  ")[0] for line in text] == [
        "5 shots of each class", "real", "real + new real", "gan only", "gan: read-back 0.5, recall 0.25, seconds 3"
    ]  # fmt: skip
    assert text[2].endswith("+158.0   +70.0 … +246.0")
    benchmark.draw({5: rows, 10: benchmark.summary(records(10), 10)}, tmp_path / "forest.png")
    assert (tmp_path / "forest.png").read_bytes()[:4] == b"\x89PNG"


def test_a_generator_that_diverges_is_left_out(benchmark, drawn, monkeypatch, capsys):
    shots, new, _ = drawn
    made = {0: new, 1: None}
    monkeypatch.setattr(benchmark, "generated", lambda trainer, shots, count, seed: made[seed])

    class Fixed:
        def accuracy(self, arm, seed):
            return len(arm.rows) / 1000 + seed / 10

        def sees(self, rows):
            return {"read_back": 1.0, "recall": 0.5}

    bench = benchmark.Bench(Fixed(), {"gan": None}, Fixed(), repeats=2)
    for seed in (0, 1):
        bench.run(4, seed, shots, new)
    assert "seed 1: gan diverged" in capsys.readouterr().err
    rows = {(row["generator"], row["arm"]): row for row in benchmark.summary(bench.records, 4)}
    assert rows["gan", "generated only"]["seeds"] == 1
    assert rows["", "real"]["accuracy"] == pytest.approx(0.04 + (0.05 + 0.25) / 2)  # seeds 0 and 1, then 2 and 3
    assert rows["", "real + new real"]["difference"] == pytest.approx(0.12)
    json.dumps([bench.records, bench.seen])


# --- refusals ---------------------------------------------------------------------------------------------------------


def asked(benchmark, *words: str) -> argparse.Namespace:
    return benchmark.parser().parse_args(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--seeds", "1"], "an interval needs two seeds"),
        (["--classifiers", "0"], "--classifiers is 0; it must be at least 1"),
        (["--config", "configs/diffusion/digits_edm.py"], "its objective is no Classification"),
        (["--k", "40", "--seeds", "2"], "KShot: 120 of each class after the first 40, and class"),
        (["--generator", "configs/diffusion/digits_edm.py", "--seeds", "2"], "it is not asked for a class"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_training(benchmark, words, said):
    with pytest.raises(UserError, match=said):
        benchmark.bench(asked(benchmark, *words), ONE)
