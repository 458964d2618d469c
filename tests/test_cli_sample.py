"""`jaxgen sample` and `interpolate`, and what `--ema`, `--solver` and their like change, on runs of a few seconds."""

import errno
import json
import os
import re
import types

import numpy as np
import pytest
from PIL import Image
from processes import ROOT

from jaxgen import cli
from jaxgen.commands import generator, output, sample
from jaxgen.pictures import sheet
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
        (("interpolate", "--n", "1"), "--n is 1; there must be at least 2"),
        (("interpolate", "--n", "1000", "--frames", "100"), "1000 × 100 images are too many for one file"),
        (("interpolate", "--label", "3"), "the classes are 0..2"),
        (("interpolate", "--out", "/nowhere/a.gif"), "no folder /nowhere; make it first"),
        (("interpolate", "--out", "way.mp4"), r"files that end in .mp4 cannot be written here; .*\.png, .*\.gif"),
        (("interpolate", "--frames", "1e99"), "--frames is more than 2,147,483,647"),
        (("interpolate", "--size", "16"), "makes images of 8×8, and cannot make 16×16; drop --size"),
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
        (("--n", "-1"), "--n is -1"),
        (("--n", "many"), "'many' is no whole number"),
        (("--n", "2.5"), "'2.5' is no whole number"),
        (("--n", "2,5"), "'2,5' is no whole number"),
        (("--n", "inf"), "'inf' is no whole number"),
        (("--n", "3e9"), "--n is more than 2,147,483,647, the most that can be"),
        (("--seed", "first"), "'first' is no whole number"),
        (("--columns", "0"), "--columns is 0"),
        (("--size", "9"), "8×8, and cannot make 9×9: dit: 9 × 9 does not split into patches of 2; 10 × 10 does"),
        (("--size", "big"), "'big' is no size; write height and width in pixels, such as 64x96"),
        (("--size", "0x8"), "'0x8' is no size"),
        (("--label", "clas 1"), "'clas 1', which is no class of this run; perhaps you meant .*class 1"),
        (("--label", "zebra"), "'zebra', which is no class of this run; the classes are class 0, class 1, class 2"),
        (("--label", ","), "--label is empty"),
        (("--label", "-1"), "--label is -1; the classes are 0..2"),
        (("--out", "a.xyz"), r"files that end in .xyz cannot be written here; give it one of .png, .jpg"),
        (("--out", "samples"), "a file without a suffix cannot be written here"),
        (("--npz", "a.txt"), r"files that end in .txt cannot be written here; give it one of .npz"),
        (("--npz", "/nowhere/a.npz"), "no folder /nowhere"),
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


def test_samples_are_files_of_their_own(trained, tmp_path, capsys):
    # Eleven are two batches of eight, the second one filled up.
    places = [tmp_path / name for name in ("made/here", "all.npz", "sheet.png")]
    arguments = ["sample", str(trained), "--n", "1.1e1", "--label", "class 2,0", "--json", "--columns", "11"]
    capsys.readouterr()
    assert cli.main([*arguments, "--dir", str(places[0]), "--npz", str(places[1]), "--out", str(places[2])]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["n"], said["dir"], said["npz"]) == (11, str(places[0]), str(places[1]))
    assert (said["size"], said["not_finite"]) == ([8, 8], 0)
    values = np.load(places[1])
    assert values["labels"].tolist() == [2, 0] * 5 + [2]
    assert sorted(p.name for p in places[0].iterdir()) == [f"{i:06}.png" for i in range(11)] + ["labels.csv"]
    assert (places[0] / "labels.csv").read_text().splitlines()[:3] == [
        "file,label,class", "000000.png,2,class 2", "000001.png,0,class 0",
    ]  # fmt: skip
    page = np.asarray(Image.open(places[2]))
    for i in range(11):
        with Image.open(places[0] / f"{i:06}.png") as one:
            assert (one.mode, one.size) == ("L", (8, 8))
            pixels = np.asarray(one)
        np.testing.assert_array_equal(pixels, np.round((values["samples"][i, ..., 0] + 1) * 127.5).clip(0, 255))
        np.testing.assert_array_equal(page[6:102:12, 6 + 102 * i :][:, :96:12, 0], pixels)
    refused(capsys, [*arguments, "--dir", places[0]], "it holds 12 files already; name a new folder")
    refused(capsys, [*arguments, "--dir", places[1]], "it is a file; name a folder")
    refused(capsys, arguments, "say where samples go: --out FILE.png")


def test_a_picture_is_written_in_the_format_that_its_name_says(game, tmp_path):
    for name, kind in (("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP"), ("a.tif", "TIFF"), ("a.BMP", "BMP")):
        for command in (["sample"], ["interpolate", "--frames", "2"]):
            assert cli.main([*command, str(game), "--n", "2", "--out", str(tmp_path / name)]) == 0
            with Image.open(tmp_path / name) as picture:
                assert picture.format == kind
    assert cli.main(["interpolate", str(game), "--n", "2", "--frames", "2", "--out", str(tmp_path / "a.GIF")]) == 0
    with Image.open(tmp_path / "a.GIF") as picture:
        assert (picture.format, picture.n_frames) == ("GIF", 4)


def test_each_row_of_an_interpolation_has_its_own_label(game, tmp_path):
    made = [sampled(game, tmp_path, name, "--label", name)["samples"][:2] for name in ("0", "class 1")]
    png = tmp_path / "way.png"
    options = ["--n", "2", "--frames", "2", "--label", "0", "--label", "CLASS 1", "--out", str(png)]
    assert cli.main(["interpolate", str(game), *options]) == 0
    page = np.asarray(Image.open(png))
    for row in range(2):
        first = page[6 + 102 * row :, 6:][:96:12, :96:12, 0].astype(int)
        np.testing.assert_allclose(first, ((made[row][row, :, :, 0] + 1) * 127.5).clip(0, 255), atol=1)


def test_a_convolutional_net_or_a_transformer_makes_other_sizes(trained, tmp_path, capsys):
    capsys.readouterr()
    made = sampled(trained, tmp_path, "a", "--size", "12x16", "--json")["samples"]
    said = capsys.readouterr()
    assert made.shape == (6, 12, 16, 1)
    assert json.loads(said.out)["size"] == [12, 16]
    assert said.err.count("the net was trained on images of 8×8") == 1
    same = sampled(trained, tmp_path, "b", "--size", "8")["samples"]
    assert "trained on" not in capsys.readouterr().err
    np.testing.assert_array_equal(same, sampled(trained, tmp_path, "c")["samples"])


def test_more_samples_than_a_sheet_shows_are_said(game, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sheet, "SHOWN", 4)
    capsys.readouterr()
    assert len(sampled(game, tmp_path, "a")["samples"]) == 6
    assert "shows the first 4 samples; --dir writes a file for each" in capsys.readouterr().err
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (6 + 4 * 102, 6 + 96 + 18 + 6)


def test_what_the_disk_cannot_hold_is_refused(game, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(output.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=100_000))
    npz = tmp_path / "a.npz"
    refused(capsys, ["sample", game, "--n", "1000", "--npz", npz], r"would take 256 kB, and its disk has 100 kB")
    assert not list(tmp_path.iterdir())


def test_no_half_file_is_left_where_sampling_fails(game, tmp_path, capsys, monkeypatch):
    def full(*_args, **_more):
        yield np.zeros((3, 8, 8, 1), np.float32)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sample, "draw_batches", full)
    refused(capsys, ["sample", game, "--n", "6", "--npz", tmp_path / "a.npz"], "^error: cannot write: No space left")
    assert not list(tmp_path.iterdir())


def test_samples_that_are_not_finite_are_named(game, tmp_path, capsys, monkeypatch):
    def some(*_args, **_more):
        samples = np.zeros((3, 8, 8, 1), np.float32)
        samples[1, 0, 0] = np.nan
        yield samples

    monkeypatch.setattr(sample, "draw_batches", some)
    capsys.readouterr()
    arguments = ["sample", str(game), "--n", "3", "--json", "--out", str(tmp_path / "a.png")]
    assert cli.main([*arguments, "--dir", str(tmp_path / "d")]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["not_finite"] == 1
    assert "1 of 3 samples are not finite (numbers 1), red in pictures" in said.err
    assert np.asarray(Image.open(tmp_path / "a.png"))[6, 6 + 102].tolist() == list(sheet.WRONG)


def test_a_name_goes_before_a_number(capsys):
    classes = ("7", "cat", "Cat, wild", "1")
    assert [generator._label(text, classes) for text in ("cat", "1", "0", "2", "CAT, WILD")] == [1, 3, 0, 2, 2]
    assert capsys.readouterr().err == "note: --label 1 is the class named '1', whose number is 3\n"


def test_large_numbers_are_read_as_people_write_them():
    assert [output.whole(text) for text in ("1e4", "10,000", "10_000", "-3", "5.0")] == [10_000] * 3 + [-3, 5]


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


def test_a_plan_is_drawn_in_a_format_that_is_known(tmp_path, capsys):
    config = ROOT / "configs/diffusion/digits_edm.py"
    refused(capsys, ["plan", config, "--scale", "cpu:1", "--out", tmp_path / "a.mp4"], "end in .mp4 cannot be written")
