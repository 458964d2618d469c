"""`jaxgen sample` and `interpolate`, and what `--ema`, `--solver` and their like change, on runs of a few seconds."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from processes import ROOT

from jaxgen import cli
from jaxgen.runs.folder import RunFolder

CONFIG = """
import dataclasses
from small import diffusion
from jaxgen.metrics.distribution import Distribution
from jaxgen.features.pixels import Pixels

def config():
    metrics = (Distribution(features=Pixels(), samples=16, neighbours=2),)
    return dataclasses.replace(diffusion(), steps=12, checkpoint_every=6, snapshot_every=3, metrics=metrics)
"""


GAME = """
import dataclasses
from small import gan
from jaxgen.learner import Learner
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.objectives.gan import Gan

def config():
    base = gan()
    objective = Gan(
        generator=Learner(
            module=MlpGenerator(latent=8, classes=3, shape=(8, 8, 1), width=16),
            optimizer=base.objective.generator.optimizer,
        ),
        discriminator=Learner(
            module=MlpDiscriminator(classes=3, width=16), optimizer=base.objective.discriminator.optimizer
        ),
        penalties=(),
        side=2,
    )
    return dataclasses.replace(base, objective=objective, steps=3)
"""


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("generator") / "run"
    config = folder.parent / "noise.py"
    config.write_text(CONFIG)
    assert cli.train([str(config), "--run-dir", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def game(tmp_path_factory):
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("game") / "run"
    config = folder.parent / "game.py"
    config.write_text(GAME)
    assert cli.train([str(config), "--run-dir", str(folder)]) == 0
    return folder


def sampled(trained, tmp_path, name: str, *options: str):
    npz = tmp_path / f"{name}.npz"
    png = tmp_path / f"{name}.png"
    assert cli.main(["sample", str(trained), "--n", "6", "--out", str(png), "--npz", str(npz), *options]) == 0
    return np.load(npz)


def refused(capsys, arguments, pattern: str) -> None:
    capsys.readouterr()
    assert cli.main([str(a) for a in arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) <= 2, said
    assert re.search(pattern, said), said


def test_samples_are_a_picture_and_numbers(trained, tmp_path, capsys):
    made = sampled(trained, tmp_path, "a", "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["step"] == 12
    assert said["protocol"]["nfe"] == 10  # three steps of Heun, two evaluations each for guidance
    assert made["samples"].shape == (6, 8, 8, 1)
    assert made["samples"].dtype == np.float32
    assert made["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 96
    again = sampled(trained, tmp_path, "b")
    np.testing.assert_array_equal(again["samples"], made["samples"])
    assert sampled(trained, tmp_path, "c", "--label", "2")["labels"].tolist() == [2] * 6
    assert np.abs(sampled(trained, tmp_path, "d", "--seed", "1")["samples"] - made["samples"]).max() > 0.1


def test_the_way_samples_are_made_can_be_changed(trained, tmp_path, capsys):
    plain = sampled(trained, tmp_path, "a")["samples"]
    capsys.readouterr()
    other = sampled(trained, tmp_path, "b", "--solver", "Euler()", "--schedule", "Rho(steps=7)", "--json")["samples"]
    assert json.loads(capsys.readouterr().out)["protocol"]["nfe"] == 14
    assert np.abs(other - plain).max() > 1e-3
    # Guided by itself, a net is not guided.
    itself = ["--guide", str(trained), "--guidance", "Autoguidance(scale=2.0)"]
    guided = sampled(trained, tmp_path, "c", *itself)["samples"]
    alone = sampled(trained, tmp_path, "d", "--guidance", "Unguided()")["samples"]
    np.testing.assert_allclose(guided, alone, atol=1e-3)


def test_an_ema_that_was_kept_is_the_one_made_afterwards(trained, tmp_path):
    # The first of the two averages has the width 0.05, and a snapshot was taken at the last step.
    kept = sampled(trained, tmp_path, "a")["samples"]
    np.testing.assert_allclose(sampled(trained, tmp_path, "b", "--ema", "0.05")["samples"], kept, atol=1e-3)
    assert np.abs(sampled(trained, tmp_path, "c", "--ema", "0.1")["samples"] - kept).max() > 1e-4
    steps = sorted(int(p.name) for p in RunFolder(trained).snapshots.iterdir() if p.name.isdigit())
    assert steps == [3, 6, 9, 12]


def test_eval_has_each_number_and_its_baseline(trained, capsys):
    capsys.readouterr()
    assert cli.main(["eval", str(trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]
    assert found == json.loads((trained / "eval.json").read_text())["metrics"]
    assert {"fd_pixels", "fd_pixels_floor", "precision", "recall", "loss"} <= found.keys()
    assert found["protocol"]["nfe"] == 10
    assert found["protocol"]["fd_pixels"]["samples"] == 16
    assert cli.main(["eval", str(trained)]) == 0
    assert "fd_pixels_floor" in capsys.readouterr().out


def test_eval_of_other_samples(trained, tmp_path, capsys):
    capsys.readouterr()
    assert cli.main(["eval", str(trained), "--json", "--samples", "9", "--guidance", "Unguided()"]) == 0
    found = json.loads(capsys.readouterr().out)["metrics"]["protocol"]
    assert found["nfe"] == 5
    assert found["fd_pixels"]["samples"] == 9
    refused(capsys, ["eval", trained, "--inception-weights", tmp_path / "no.safetensors"], "there is no file")


def test_previews_show_both_ways_and_the_error(trained):
    names = {path.name.split("_", 2)[2] for path in (trained / "previews").iterdir()}
    assert names == {"samples.png", "forward.png", "reverse.png", "error.png"}


def test_a_gan_can_be_sampled_and_truncated(game, tmp_path, capsys):
    capsys.readouterr()
    made = sampled(game, tmp_path, "a", "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["protocol"] == {"generator": "MlpGenerator", "truncation": 1.0, "nfe": 1}
    assert made["labels"].tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(sampled(game, tmp_path, "b", "--truncation", "1")["samples"], made["samples"])
    capsys.readouterr()
    none = sampled(game, tmp_path, "c", "--truncation", "0", "--label", "1", "--json")["samples"]
    assert json.loads(capsys.readouterr().out)["protocol"]["truncation"] == 0
    np.testing.assert_array_equal(none, np.repeat(none[:1], 6, axis=0))


@pytest.mark.parametrize("run", ["game", "trained"])
def test_an_interpolation_is_rows_or_an_animation(run, request, tmp_path, capsys):
    folder = request.getfixturevalue(run)
    capsys.readouterr()
    png, gif = tmp_path / "a.png", tmp_path / "a.gif"
    arguments = ["interpolate", str(folder), "--n", "3", "--frames", "4", "--label", "2", "--json", "--out"]
    assert cli.main([*arguments, str(png)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n"], said["frames"], said["out"]) == (3, 4, str(png))
    assert said["protocol"]["nfe"] >= 1
    assert cli.main([*arguments, str(gif)]) == 0
    with Image.open(png) as picture:
        rows = np.asarray(picture).astype(int)
    side = 96 + 6  # of a picture that is shown, and of the gap after it
    assert rows.shape == (6 + 3 * side, 6 + 4 * side, 3)
    cell = lambda i, j: rows[6 + i * side :, 6 + j * side :][:96, :96]  # noqa: E731
    for i in range(3):
        # A row ends with the sample that the next begins with, and the last one with the first.
        assert np.abs(cell(i, 3) - cell((i + 1) % 3, 0)).max() <= 1
    assert np.abs(cell(0, 0) - cell(1, 0)).max() > 1
    with Image.open(gif) as animation:
        assert animation.n_frames == 12
        assert animation.info["loop"] == 0
        first = np.asarray(animation.convert("RGB")).astype(int)
    assert np.abs(first[6:102, 6:102] - cell(0, 0)).max() <= 2


def test_an_interpolation_begins_at_the_samples(game, tmp_path):
    made = sampled(game, tmp_path, "a", "--label", "0")["samples"]
    png = tmp_path / "way.png"
    arguments = ["interpolate", str(game), "--n", "6", "--frames", "2", "--label", "0", "--out", str(png)]
    assert cli.main(arguments) == 0
    with Image.open(png) as picture:
        first = np.asarray(picture)[6:, 6:][:96:12, :96:12, 0].astype(int)  # one pixel is twelve
    np.testing.assert_allclose(first, ((made[0, :, :, 0] + 1) * 127.5).clip(0, 255), atol=1)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("interpolate", "--frames", "0"), "--frames is 0"),
        (("interpolate", "--n", "0"), "--n is 0"),
        (("interpolate", "--label", "3"), "the classes are 0..2"),
        (("interpolate", "--out", "/nowhere/a.gif"), "no folder /nowhere"),
        (("sample", "--truncation", "2"), r"--truncation is 2.0; it lies in 0\.\.1"),
        (("interpolate", "--truncation", "-0.5"), "--truncation is -0.5"),
        (("sample", "--guide", "RUN"), "--guide is for Autoguidance, which a GAN does not have"),
        (("sample", "--solver", "Euler()"), "a GAN has no solver to choose"),
        (("sample", "--ema", "0.1"), "kept no snapshots"),
    ],
)
def test_what_a_gan_cannot_do_is_refused(game, tmp_path, capsys, options, pattern):
    command, *rest = (str(game) if option == "RUN" else option for option in options)
    refused(capsys, [command, game, "--out", tmp_path / "a.png", *rest], pattern)


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--n", "0"), "--n is 0"),
        (("--label", "3"), "the classes are 0..2"),
        (("--seed", "-1"), "--seed is -1"),
        (("--solver", "Huen()"), "perhaps you meant Heun"),
        (("--schedule", "Rho(steps=0)"), "steps is 1 or more"),
        (("--guidance", "Autoguidance(scale=2.0)"), "guiding model"),
        (("--ema", "0.5"), "relative width"),
        (("--ema", "0.0004"), "cannot be made of the 4 snapshots"),
        (("--out", "/nowhere/a.png"), "no folder /nowhere"),
        (("--truncation", "0.5"), "Diffusion has no truncation to choose"),
    ],
)
def test_bad_options_are_refused(trained, tmp_path, capsys, options, pattern):
    refused(capsys, ["sample", trained, "--out", tmp_path / "a.png", *options], pattern)


def test_what_cannot_be_sampled_or_kept_is_refused(tmp_path, capsys):
    config = tmp_path / "labels.py"
    config.write_text("from small import classification as config\n")
    run = tmp_path / "run"
    arguments = [str(config), "--run-dir", str(run), "--steps", "2"]
    assert cli.train([*arguments, "--snapshot-every", "1"]) == 2
    assert "hold no PowerEma" in capsys.readouterr().err
    assert cli.train(arguments) == 0
    refused(capsys, ["sample", run, "--out", tmp_path / "a.png"], "Classification makes no samples")
    refused(capsys, ["interpolate", run, "--out", tmp_path / "a.png"], "Classification makes no samples")
    refused(capsys, ["sample", run, "--out", tmp_path / "a.png", "--truncation", "1"], "has no truncation to choose")
    refused(capsys, ["eval", run, "--ema", "0.1"], "kept no snapshots")
    refused(capsys, ["eval", run, "--solver", "Euler()"], "Classification has no solver")
