"""When a training is good enough: at the first checkpoint whose evaluation says so."""

import importlib
import pathlib

import pytest
import small

from jaxgen.errors import UserError


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("time_to_quality")


def test_distances_and_losses_are_to_fall_and_shares_to_rise(benchmark):
    for name in ("fd_digits_cnn", "fid", "kid_pixels", "loss", "kl"):
        quality = benchmark.Quality.parse(f"{name}=0.5")
        assert quality.reached({name: 0.4})
        assert not quality.reached({name: 0.6})
    for name in ("accuracy", "miou", "modes", "recall"):
        quality = benchmark.Quality.parse(f"{name}=0.5")
        assert quality.reached({name: 0.6})
        assert not quality.reached({name: 0.4})


@pytest.mark.parametrize("text", ["accuracy", "accuracy=much", "=0.5", "accuracy>0.5"])
def test_a_quality_is_a_metric_and_a_number(benchmark, text):
    with pytest.raises(UserError, match=r"write METRIC=VALUE, such as accuracy=0\.99"):
        benchmark.Quality.parse(text)


def test_it_stops_at_the_first_checkpoint_that_is_good_enough(benchmark, tmp_path):
    experiment = small.linear()  # of 12 steps
    never = benchmark.until(experiment, benchmark.Quality("loss", 0.0), 3, tmp_path / "never")
    assert never["step"] is None
    steps, losses = zip(*never["curve"], strict=True)
    assert steps == (3, 6, 9, 12)
    assert never["last"] == losses[-1]
    middle = sorted(losses)[1]
    found = benchmark.until(experiment, benchmark.Quality("loss", middle), 3, tmp_path / "found")
    assert found["step"] == next(step for step, loss in never["curve"] if loss <= middle)
    assert found["curve"] == [row for row in never["curve"] if row[0] <= found["step"]]


def test_a_metric_that_is_not_measured_is_refused_before_the_training(benchmark):
    with pytest.raises(UserError, match="--quality: miou is not measured; there are accuracy, loss"):
        benchmark.Quality("miou", 0.5).check(small.linear())


def test_each_config_is_timed(benchmark):
    times = benchmark.step_milliseconds({"one": small.linear(), "other": small.linear()}, rounds=2)
    assert set(times) == {"one", "other"}
    assert all(milliseconds > 0 for milliseconds in times.values())
