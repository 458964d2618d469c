import importlib
import json
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from jaxgen.config import files
from jaxgen.errors import UserError

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("against_torch")
    monkeypatch.setattr(module, "PAUSE", 0.0)
    return module


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("jaxgen_steps")


class Fixed:
    """A side whose steps always take the same time."""

    def __init__(self, name, seconds, opened=None):
        self.name, self.seconds, self.turns = name, seconds, []
        self.opened = opened or {"parameters": 7, "forward_flops": 2e9}

    def ask(self, line):
        assert line == "open dcgan"

    def answer(self):
        return self.opened

    def run(self, steps):
        self.turns.append(steps)
        return self.seconds


def test_the_ratio_is_that_of_the_fastest_torch_mode_to_jaxgen(driver):
    sides = [Fixed("jaxgen", 0.02), Fixed("torch eager", 0.08), Fixed("torch compile", 0.05)]
    row = driver.measure("dcgan", sides, 3, 1.0)
    assert row.ratio == pytest.approx(2.5)
    assert sides[0].turns[2:] == [1, 50] * 3  # one that is not timed, then a second's
    assert sides[1].turns[2:] == [1, 12] * 3


def test_the_table_ends_in_the_geometric_mean_of_the_ratios(driver):
    rows = [
        driver.measure("dcgan", [Fixed("jaxgen", 1.0), Fixed("torch eager", ratio)], 1, 0.1) for ratio in (0.5, 8.0)
    ]
    last = driver.table(rows, ["jaxgen", "torch eager"]).splitlines()[-1]
    assert [cell.strip() for cell in last.strip("|").split("|")] == ["geometric mean", "", "", "", "", "2.00"]


def test_nets_with_other_numbers_of_parameters_are_not_compared(driver):
    other = Fixed("torch eager", 1.0, {"parameters": 8, "forward_flops": 2e9})
    with pytest.raises(UserError, match="jaxgen 7, torch eager 8 parameters"):
        driver.measure("dcgan", [Fixed("jaxgen", 1.0), other], 1, 0.1)
    assert other.turns == []


def test_a_mode_that_cannot_run_is_named_and_the_others_are_compared(driver):
    lacking = Fixed("torch compile", 1.0, {"error": "InvalidCxxCompiler: no compiler\nmore"})
    row = driver.measure("dcgan", [Fixed("jaxgen", 1.0), Fixed("torch eager", 3.0), lacking], 1, 0.1)
    assert row.missing == {"torch compile": "InvalidCxxCompiler: no compiler"}
    assert row.ratio == pytest.approx(3.0)
    assert "not available" in driver.table([row], ["jaxgen", "torch eager", "torch compile"])


def test_a_server_answers_in_lines_of_json_whatever_libraries_print():
    script = textwrap.dedent("""
        from step_server import Workload, serve

        def make(name):
            if name == "dit_s2":
                raise RuntimeError("no")
            print("noise")
            return Workload(parameters=3, forward_flops=5, step=lambda number: print(number), wait=lambda: None)

        serve({"platform": "cpu"}, make)
    """)
    asked = "open dcgan\nrun 2\nopen dit_s2\nrun 1\n"
    done = subprocess.run(
        [sys.executable, "-c", script], input=asked, capture_output=True, text=True, check=True, cwd=BENCHMARKS
    )
    hello, opened, ran, failed, late = map(json.loads, done.stdout.splitlines())
    assert hello == {"platform": "cpu"}
    assert opened == {"parameters": 3, "forward_flops": 5}
    assert 0 <= ran["seconds"] < 1
    assert failed == {"error": "RuntimeError: no"}
    assert "error" in late  # nothing is open
    assert done.stderr.split() == ["noise", "0", "1", "2", "3", "4"]  # three steps to warm up, then two


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet18", 11_689_512), ("fcn_resnet50", 35_322_218)],  # as torchvision's
)
def test_nets_have_as_many_parameters_as_those_published(steps, name, parameters):
    program = steps.program(steps.EXPERIMENTS[name]("float32"))
    assert sum(x.size for x in jax.tree.leaves(program.shapes.nets["net"].params)) == parameters


def test_samples_are_drawn_by_the_net_of_digits_edm(steps):
    mine = steps.sampler("float32", 16)
    shipped = files.load(pathlib.Path("configs/diffusion/digits_edm.py")).objective.net.module
    assert mine.objective.net.module == shipped
    assert mine.objective.protocol()["nfe"] == steps.EVALUATIONS
    assert mine.test_batch_size == 16


def test_texts_are_drawn_by_the_nets_of_emoji_unet(steps):
    mine = steps.text_sampler("float32", 16).objective
    shipped = files.load(pathlib.Path("configs/text_to_image/emoji_unet.py")).objective
    assert mine.net.module == shipped.net.module
    assert mine.text[0].encoder.module == shipped.text[0].encoder.module
    assert mine.prediction == shipped.prediction
    assert mine.protocol()["nfe"] == 2 * steps.EVALUATIONS


def test_torch_reads_the_bytes_that_jaxgen_trains_on(steps, tmp_path):
    experiment = steps.EXPERIMENTS["resnet18"]("float32")
    steps.write_batches(experiment, tmp_path / "resnet18")
    listed = json.loads((tmp_path / "resnet18" / "batches.json").read_text())
    batches = steps.host_batches(experiment)
    assert len(listed) == len(batches) == steps.BATCHES
    for arrays, batch in zip(listed, batches, strict=True):
        assert arrays.keys() == batch.keys() == {"image", "label"}
        for name, (file, dtype, shape) in arrays.items():
            read = np.frombuffer((tmp_path / "resnet18" / file).read_bytes(), dtype).reshape(shape)
            np.testing.assert_array_equal(read, batch[name])
