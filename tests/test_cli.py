"""The commands: what they print, and how a user's mistake is answered: one or two lines, status 2, nothing lost."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from processes import ROOT, TINY, call

from jaxgen import cli

SHORT = ["--steps", "4", "--checkpoint-every", "2", "--evaluate-every", "0"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert cli.train([TINY, "--run-dir", str(folder), *SHORT]) == 0
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("classifier") / "run"
    config = folder.parent / "labels.py"
    config.write_text("from small import classification as config\n")
    assert cli.train([str(config), "--run-dir", str(folder), *SHORT]) == 0
    return folder


def refused(capsys, run, *patterns: str) -> None:
    """The command fails with status 2, and says at most two lines, which match."""
    capsys.readouterr()
    assert run() == 2
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert 1 <= len(lines) <= 2, said.err
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    for pattern in patterns:
        assert re.search(pattern, said.err), said.err


def size(path: str | pathlib.Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


# --- what is there -----------------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_the_readme_says(trained):
    there = {path.name for path in trained.iterdir()}
    assert {"experiment.txt", "metrics.jsonl", "previews", "checkpoints", "eval.json"} <= there
    assert any(name.startswith("events.out.tfevents") for name in there)
    text = (trained / "experiment.txt").read_text()
    assert "Experiment(" in text
    assert re.search(r"^jax \d", text, re.M)
    assert re.search(r"^commit [0-9a-f]{40}\+?$|^commit unknown", text, re.M)
    previews = sorted(path.name for path in (trained / "previews").iterdir())
    assert previews == ["step_00000002_masks.png", "step_00000004_masks.png"]  # the first comes with the first metrics
    assert size(trained / "previews" / previews[0])[0] > 300
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "images_per_second", "data_wait"} <= rows[0].keys()


def test_the_same_command_on_a_finished_run_changes_nothing(trained, capsys):
    before = json.loads((trained / "eval.json").read_text())
    assert cli.train([TINY, "--run-dir", str(trained), *SHORT]) == 0
    assert "going on from step 4 of 4" in capsys.readouterr().out
    assert json.loads((trained / "eval.json").read_text()) == before


def printed(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    assert cli.main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)  # one JSON object and nothing else


def test_eval_measures_what_training_measured(trained, capsys):
    found = printed(capsys, "eval", str(trained), "--json")
    assert found == json.loads((trained / "eval.json").read_text())
    assert set(found) == {"step", "metrics"}
    assert 0 <= found["metrics"]["miou"] <= 1
    assert (
        set(found["metrics"]["per_class"]) == {"class 0", "class 1", "class 2"}
        or len(found["metrics"]["per_class"]) == 3
    )


def test_eval_of_an_earlier_step(trained, capsys):
    assert printed(capsys, "eval", str(trained), "--json", "--step", "2")["step"] == 2


def test_eval_prints_a_table(trained, capsys):
    assert cli.main(["eval", str(trained)]) == 0
    out = capsys.readouterr().out
    assert "step 4" in out
    assert "IoU" in out


def test_inspect_counts_and_hashes(trained, capsys):
    found = printed(capsys, "inspect", str(trained), "--json")
    assert found["step"] == 4
    params = [row for row in found["arrays"] if row["path"].startswith("nets/net/params/")]
    assert found["parameters"] == sum(int(np.prod(row["shape"])) for row in params) > 1000
    assert re.fullmatch(r"[0-9a-f]{64}", found["digest"])
    assert found["digest"] != printed(capsys, "inspect", str(trained), "--json", "--step", "2")["digest"]


def test_predict_writes_mask_overlay_and_legend_of_the_images_size(trained, capsys, tmp_path):
    picture = tmp_path / "odd.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (37, 53, 3), dtype=np.uint8)).save(picture)
    (row,) = printed(capsys, "predict", str(trained), str(picture), "--out", str(tmp_path / "out"), "--json")["images"]
    assert size(row["mask"]) == size(row["overlay"]) == (53, 37)
    with Image.open(row["mask"]) as mask:
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}
    assert size(row["legend"])[0] > 20
    assert sum(row["classes"].values()) == pytest.approx(1)


def test_predict_names_the_likeliest_classes(classifier, capsys, tmp_path):
    picture = tmp_path / "digit.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 31, 3), dtype=np.uint8)).save(picture)
    (row,) = printed(capsys, "predict", str(classifier), str(picture), "--out", str(tmp_path), "--json")["images"]
    assert len(row["top5"]) == 4  # there are four classes
    shares = [guess["probability"] for guess in row["top5"]]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_list_shows_every_config_with_its_result(capsys):
    rows = printed(capsys, "list", "--json")["configs"]
    there = {f"{path.parent.name}/{path.stem}" for path in pathlib.Path("configs").glob("*/*.py")}
    assert {row["name"] for row in rows} == there
    assert all(row["result"] and row["summary"] for row in rows)


def test_doctor_tells_versions_and_what_is_missing(capsys):
    found = printed(capsys, "doctor", "--json")
    assert found["packages"]["jax"].startswith("0.")
    assert set(found["extras"]) == {"cuda", "tpu", "plan", "prepare", "music"}
    assert found["memory_pages"]
    assert cli.main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "uv sync --extra" in shown
    assert all(f"{name}={value} (" in shown for name, value in found["compiler_options"].items())


def test_help_lists_every_field_with_its_default(tmp_path):
    done = call("train.py", TINY, "--help", cache=tmp_path)
    assert done.returncode == 0
    for name in (
        "--seed",
        "--steps",
        "--batch-size",
        "--objective.net.module.classes",
        "--objective.net.optimizer.learning-rate.peak",
    ):
        assert name in done.stdout
    assert "(default: 60)" in done.stdout


# --- what goes wrong -----------------------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "broken.py"
        path.write_text(text)
        return str(path)

    return write


def test_no_config_at_all(capsys):
    refused(capsys, lambda: cli.train(["configs/segmentation/scenes_fcn9s.py"]), "no config", r"scenes_fcn8s\.py")
    refused(capsys, lambda: cli.train(["--seed", "3"]), "the config comes first")


def test_a_config_without_config(capsys, write):
    refused(capsys, lambda: cli.train([write("x = 1\n")]), r"has no function config\(\)")


def test_a_config_that_raises(capsys, write):
    path = write("def config():\n    return 1 / 0\n")
    refused(capsys, lambda: cli.train([path]), "line 2: ZeroDivisionError")


def test_a_config_that_is_not_python(capsys, write):
    path = write("def config(:\n")
    refused(capsys, lambda: cli.train([path]), "line 1: SyntaxError")


def test_a_config_that_returns_something_else(capsys, write):
    path = write("def config():\n    return 3\n")
    refused(capsys, lambda: cli.train([path]), "returned int")


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--stpes", "3"], "unknown option --stpes; perhaps you meant --steps"),
        (["--objective.net.module.clases", "3"], r"perhaps you meant --objective\.net\.module\.classes"),
        (["--learning-rate", "3"], r"perhaps you meant --objective\.net\.optimizer\.learning-rate"),
        (["--seed", "x"], "--seed.*'x'"),
        (["--seed"], "--seed"),
        (["--steps", "0"], "--steps is 0; it must be at least 1"),
        (["stray"], "stray"),
    ],
)
def test_a_mistyped_override(capsys, tmp_path, arguments, pattern):
    folder = tmp_path / "run"
    refused(capsys, lambda: cli.train([TINY, "--run-dir", str(folder), *arguments]), pattern)
    assert not folder.exists()


def test_a_batch_that_the_mesh_does_not_divide(capsys, tmp_path):
    folder = tmp_path / "run"
    refused(capsys, lambda: cli.train([TINY, "--run-dir", str(folder), "--batch-size", "6"]), "does not divide over 8")
    refused(capsys, lambda: cli.train([TINY, "--run-dir", str(folder), "--mesh.replica", "3"]), "do not multiply")
    micro = [TINY, "--run-dir", str(folder), "--objective.microbatches", "3"]
    refused(capsys, lambda: cli.train(micro), r"8 device\(s\) x 3 .*; try --batch-size 24")
    assert not folder.exists()


def test_a_net_with_other_classes_than_the_data(capsys, tmp_path):
    folder = tmp_path / "run"
    arguments = [TINY, "--run-dir", str(folder), "--objective.net.module.classes", "5"]
    refused(capsys, lambda: cli.train(arguments), r"5 outputs.*3 classes.*--objective\.net\.module\.classes 3")
    assert not folder.exists()


def test_a_run_folder_of_another_experiment(capsys, trained):
    arguments = [TINY, "--run-dir", str(trained), *SHORT, "--seed", "1", "--objective.net.module.dropout", "0.1"]
    refused(capsys, lambda: cli.train(arguments), "seed: 0 -> 1", r"dropout: 0\.5 -> 0\.1", "--run-dir")


def test_a_folder_that_is_no_run_folder(capsys, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    refused(capsys, lambda: cli.train([TINY, "--run-dir", str(tmp_path), *SHORT]), "not a run folder")
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_a_folder_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    refused(capsys, lambda: cli.train([TINY, "--run-dir", str(tmp_path / "file" / "run"), *SHORT]), "cannot write to")


@pytest.mark.parametrize("command", ["eval", "inspect"])
def test_a_run_that_is_not_there(capsys, tmp_path, command):
    refused(capsys, lambda: cli.main([command, str(tmp_path / "nowhere")]), "is not a run folder")


def test_a_step_that_is_not_there(capsys, trained):
    refused(capsys, lambda: cli.main(["eval", str(trained), "--step", "3"]), r"no checkpoint of step 3.*2, 4")


def test_an_image_that_is_none(capsys, trained, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no picture")
    out = tmp_path / "out"
    refused(
        capsys,
        lambda: cli.main(["predict", str(trained), str(text), "--out", str(out)]),
        r"text\.png: unreadable image",
    )
    refused(capsys, lambda: cli.main(["predict", str(trained), "none.png", "--out", str(out)]), "no image none.png")
    assert not out.exists()


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(capsys, trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    for file in (folder / "checkpoints" / "4" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert cli.main(["eval", str(folder), "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["step"] == 2
    assert "step 4" in said.err
    assert "going back to step 2" in said.err
    assert cli.train([TINY, "--run-dir", str(folder), *SHORT]) == 0
    assert "going back to step 2" in capsys.readouterr().out
    whole = {command: printed(capsys, command, str(folder), "--json") for command in ("eval", "inspect")}
    assert whole["inspect"]["digest"] == printed(capsys, "inspect", str(trained), "--json")["digest"]


def test_a_missing_command_line(capsys):
    refused(capsys, lambda: cli.main(["evaluate"]), "no command 'evaluate'; perhaps you meant eval")
    refused(capsys, lambda: cli.main(["eval"]), "required: RUN", "usage: jaxgen eval")
    refused(capsys, lambda: cli.main(["eval", "runs/x", "--sample", "3"]), "unrecognized arguments: --sample")
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    usage = capsys.readouterr().out
    assert all(name in usage for name in cli.COMMANDS)


def test_nothing_imports_tensorflow_or_torch():
    code = "import sys, jaxgen.cli, jaxgen.loop, jaxgen.commands.predict, jaxgen.commands.evaluate;"
    code += "import configs.segmentation.scenes_fcn8s as c; c.config();"
    code += "assert not {'tensorflow', 'torch'} & set(sys.modules), 'imported'"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
