"""Runs of an earlier version (git 2b7cebb): experiments, classes, and a whole run folder, in tests/stored_run.

The folder holds step 10 of 20 of a run by that version, `expected.json` what that version made of it: evaluated,
sampled, and trained to the end.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
from processes import ROOT
from small import EXPERIMENTS

from jaxgen import cli
from jaxgen.config import codec, files, moved
from jaxgen.runs.folder import RunFolder

STORED = ROOT / "tests" / "stored_run"
CONFIG = "tests/configs/stored.py"
# One number is a later version's: KID at step 20 was 0.041841 of samples with the classes in turn, which are now as
# frequent as in the test data (4, 4 and 5 of 13).
EXPECTED = json.loads((STORED / "expected.json").read_text())
OLD = json.loads((STORED / "experiments.json").read_text())
TYPES = json.loads((STORED / "types.json").read_text())


# What has been found better since in these configs; all else of them is as it was.
PACE = ("log_every", "preview_every", "checkpoint_every")
GAME = ("objective.generator.module", "objective.discriminator.module", "objective.penalties", "steps", *PACE)
METHOD = ("objective.net.optimizer.method",)
IMPROVED = {
    "gan/digits_conditional": GAME,
    "gan/digits_dcgan": PACE,
    "gan/digits_r3gan": GAME,
    "segmentation/scenes_fcn16s": METHOD,
    "segmentation/scenes_fcn32s": METHOD,
    "segmentation/scenes_fcn8s": METHOD,
    "segmentation/scenes_unet": METHOD,
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(STORED / "run", tmp_path_factory.mktemp("old") / "run"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        folder = pathlib.Path(shutil.copytree(STORED / "run", tmp_path_factory.mktemp("finished") / "run"))
        assert cli.train([CONFIG, "--run-dir", str(folder)]) == 0
        return folder


def printed(capsys, *arguments: str | pathlib.Path):
    capsys.readouterr()
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def same(metrics: dict, step: str) -> None:
    """These are the numbers of that version, as near as another machine's arithmetic allows."""
    numbers = {name: value for name, value in metrics.items() if isinstance(value, float)}
    assert numbers.keys() == EXPECTED[step]["metrics"].keys()
    for name, value in EXPECTED[step]["metrics"].items():
        assert numbers[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


@pytest.mark.parametrize("name", OLD)
def test_an_old_experiment_is_todays(name):
    group, _, short = name.partition("/")
    today = EXPERIMENTS[short]() if group == "small" else files.load(pathlib.Path("configs") / f"{name}.py")
    before = codec.decode(OLD[name])
    differences = codec.differences(codec.encode(before), codec.encode(today))
    assert [each for each in differences if not each.startswith(IMPROVED.get(name, ()))] == []
    assert (before == today) == (name not in IMPROVED)


def test_the_stored_run_is_the_config():
    assert RunFolder(STORED / "run").experiment == files.load(pathlib.Path(CONFIG))


@pytest.mark.parametrize("name", TYPES)
def test_every_old_class_has_a_place(name):
    """Each class of that version has a class today, and each of its fields a field."""
    todays = moved.renamed({"type": name} | dict.fromkeys(TYPES[name]))
    kind = codec.find(todays["type"])
    assert todays.keys() - {"type"} <= {field.name for field in codec.fields_of(kind)}


def test_what_is_todays_is_not_moved():
    for make in EXPERIMENTS.values():
        data = codec.encode(make())
        assert moved.renamed(data) == data
        assert moved.renamed(moved.renamed(data)) == data
    # Fields and classes of other packages keep their names, whatever they are called.
    foreign = {"type": "optim:Constant", "rate": {"type": "mine.jaxgen.average:Warm", "rate": 3}, "averages": []}
    assert moved.renamed(foreign) == foreign


def test_an_old_state_is_read_to_the_bit(folder, capsys):
    told = printed(capsys, "inspect", folder)
    assert told["step"] == 10
    assert told["digest"] == EXPECTED["step_10"]["digest"]
    assert told["parameters"] == EXPECTED["step_10"]["parameters"]


def test_an_old_state_evaluates_and_samples_as_it_did(folder, capsys, tmp_path):
    told = printed(capsys, "eval", folder)
    same(told["metrics"], "step_10")
    check_samples(folder, "step_10", tmp_path, capsys)


@pytest.mark.slow
def test_an_old_run_goes_on_to_the_same_end(finished, capsys, tmp_path):
    told = json.loads((finished / "eval.json").read_text())
    assert told["step"] == 20
    same(told["metrics"], "step_20")
    same(printed(capsys, "eval", finished)["metrics"], "step_20")
    check_samples(finished, "step_20", tmp_path, capsys)
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] != "time"] == [5, 10, 15, 20, 20]


def check_samples(folder, step, tmp_path, capsys) -> None:
    out, npz = tmp_path / "samples.png", tmp_path / "samples.npz"
    printed(capsys, "sample", folder, "--n", "4", "--seed", "3", "--out", out, "--npz", npz)
    with np.load(npz) as data:
        assert data["labels"].tolist() == EXPECTED[step]["labels"]
        values = data["samples"][:, 2:4, 3, 0].reshape(-1)
    np.testing.assert_allclose(values, EXPECTED[step]["samples"], rtol=1e-3, atol=1e-4)
