"""`jaxgen restore` on a run of a moment: every task, what it writes, and bad input in a line."""

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from processes import ROOT

from jaxgen import cli

NETS = """
import flax.linen as nn

class Net(nn.Module):
    classes: int = 3
    @nn.compact
    def __call__(self, x, noise, condition, *, train: bool):
        seen = nn.Dense(x.shape[-1])(noise[:, None]) + nn.Dense(x.shape[-1])(condition["label"])
        return nn.Conv(x.shape[-1], (3, 3))(x) + seen[:, None, None]
"""
CONFIG = """
import dataclasses
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeLabels
from jaxgen.learner import Learner
from jaxgen.diffusion.weighting import Unweighted
from nets import Net
from small import diffusion, linear

def config():
    base = diffusion()
    source = FakeLabels(height=8, width=12, channels=3, classes=3, size=16)
    net = Learner(module=Net(), optimizer=base.objective.net.optimizer)
    objective = dataclasses.replace(base.objective, net=net, weighting=Unweighted())
    return dataclasses.replace(
        base, objective=objective, train=Pipeline(source=source), test=Pipeline(source=source), steps=2,
        checkpoint_every=2, preview_every=2,
    )
"""
CLASSIFIER = "from small import linear as config"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("restore")


@pytest.fixture(scope="module")
def run(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tests"))
        patch.chdir(folder)
        (folder / "nets.py").write_text(NETS)
        (folder / "denoise.py").write_text(CONFIG)
        os.makedirs(folder / "configs", exist_ok=True)
        assert cli.train(["denoise.py", "--run-dir", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def files(folder):
    """A picture in every form that people have, all of the same pixels as far as the form allows."""
    draw = np.random.RandomState(0)
    colour = draw.randint(0, 256, (8, 12, 3)).astype(np.uint8)
    grey = draw.randint(0, 256, (8, 12)).astype(np.uint8)
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    Image.fromarray(np.dstack([colour, np.full((8, 12), 255, np.uint8)])).save(folder / "alpha.png")
    Image.fromarray(colour).quantize(64).save(folder / "palette.png")
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(colour)))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(folder / "turned.png", exif=exif)
    Image.fromarray(colour[::2, ::2]).save(folder / "small.png")
    holes = np.zeros((8, 12), np.uint8)
    holes[2:5, 3:8] = 255
    Image.fromarray(holes).save(folder / "mask.png")
    Image.fromarray(holes[:6]).save(folder / "low.png")
    Image.fromarray(0 * holes).save(folder / "black.png")
    (folder / "no.png").write_bytes(b"no picture")
    return folder


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def restored(capsys, run, out, *words: object) -> dict:
    capsys.readouterr()
    line = ["restore", run, *words, "--label", "1", "--schedule", "Rho(steps=2)", "--out", out, "--json"]
    assert cli.main([str(word) for word in line]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("task", "image"),
    [
        (("inpaint", "--mask", "mask.png"), "colour.png"),
        pytest.param(("sr", "--factor", "2", "--kernel", "bicubic"), "small.png", marks=pytest.mark.slow),
        pytest.param(("deblur", "--sigma", "1"), "alpha.png", marks=pytest.mark.slow),
        (("denoise", "--sigma", "0.2"), "palette.png"),
        pytest.param(("colourise",), "deep.png", marks=pytest.mark.slow),
        pytest.param(
            ("old", "--mask", "mask.png", "--fade", "0.7", "0.2", "--sigma", "0.6", "--noise", "0.03"),
            "turned.png",
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda words: words[0] if isinstance(words, tuple) else "",
)
def test_each_task_writes_pictures(run, files, tmp_path, capsys, task, image):
    words = [str(files / word) if word.endswith(".png") else word for word in task]
    said = restored(capsys, run, tmp_path, files / image, "--task", *words, "--samples", "3")
    (row,) = said["images"]
    assert said["task"] == task[0]
    # Two calls, 2 evaluations each for guidance; at the lower level each has 2 products with a derivative beside it.
    assert said["protocol"]["nfe"] == (None if task[0] == "denoise" else 2 * 1 + 2 * 3)
    assert row["mismatch"] > 0
    made = [pixels(tmp_path / f"{image[:-4]}_sample_{k}.png") for k in range(3)]
    assert all(one.shape == (8, 12, 3) for one in made)
    assert np.abs(made[0].astype(int) - made[1]).max() > 0
    np.testing.assert_array_equal(pixels(row["out"]), made[0])
    for name in ("mean", "spread", "strip"):
        assert pixels(row[name]).ndim == 3
    assert row["spread_white"] > 0
    if task[0] == "inpaint":  # a sample is a function of its number
        again = restored(capsys, run, tmp_path / "again", files / image, "--task", *words)
        np.testing.assert_array_equal(pixels(again["images"][0]["out"]), made[0])
        assert "mean" not in again["images"][0]


def test_what_is_known_stays_and_all_forms_are_read_alike(run, files, tmp_path, capsys):
    images = [files / f"{name}.png" for name in ("colour", "alpha", "turned")]
    words = ("--task", "inpaint", "--mask", files / "mask.png", "--noise", "0.001", "--method", "Ddnm()")
    said = restored(capsys, run, tmp_path, *images, *words)
    one, two, three = (pixels(row["out"]).astype(int) for row in said["images"])
    np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(one, three)
    kept = pixels(files / "mask.png") == 0
    assert np.abs(one - pixels(files / "colour.png"))[kept].max() <= 1


@pytest.mark.slow
def test_other_sizes_are_brought_or_kept_when_asked(run, files, tmp_path, capsys):
    words = (files / "small.png", "--task", "deblur", "--sigma", "0.5")
    said = restored(capsys, run, tmp_path, *words, "--resize")
    assert pixels(said["images"][0]["out"]).shape == (8, 12, 3)
    said = restored(capsys, run, tmp_path / "own", *words, "--own-size")
    assert pixels(said["images"][0]["out"]).shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("colour.png --task inpaint", "--task inpaint needs --mask"),
        ("colour.png --task deblur --sigma 1 --factor 2", "--factor is for sr, not for deblur"),
        ("colour.png --task inpaint --mask low.png", "the mask .*low.png is 6×12, and the pictures are 8×12"),
        ("colour.png --task inpaint --mask black.png", "black all over"),
        ("colour.png --task inpaint --mask none.png", "there is no mask"),
        ("small.png --task sr --factor 3", "factor of 3 does not divide a side of 8"),
        ("small.png --task sr --factor 1", "--factor is 1"),
        ("colour.png --task sr --factor 2", "colour.png is 8×12, and this run needs 4×6 to make 8×12"),
        ("small.png --task deblur --sigma 1", "small.png is 4×6, and this run needs 8×12; --resize"),
        ("colour.png --task denoise --sigma 25", "pixels from 0 to 1, above 0; of 255 levels that is 0.098"),
        ("colour.png --task denoise --sigma -0.1", "--sigma is -0.1"),
        ("colour.png --task deblur --sigma 1 --noise 3", "--noise is 3"),
        ("colour.png --task deblur --sigma 20", "leaves nothing"),
        ("colour.png --task old", "what age did"),
        ("colour.png --task old --fade 0 1", "--fade is 0 1"),
        ("colour.png --task denoise --sigma 0.1 --method Ddnm()", "--method is for damage other than noise"),
        ("colour.png --task old --sigma 1 --method Ddnm()", "pseudo-inverse"),
        ("colour.png --task deblur --sigma 1 --method Dps()", "there is no Dps"),
        ("colour.png --task upscale", "invalid choice"),
        ("colour.png --task colourise --samples 0", "--samples is 0"),
        ("no.png --task colourise", "no.png"),
        ("none.png --task colourise", "there is no image"),
    ],
)
def test_bad_input_is_a_line(run, files, tmp_path, capsys, words, says):
    line = [str(files / word) if word.endswith(".png") else word for word in words.split()]
    refused(capsys, ["restore", str(run), *line, "--label", "1", "--out", str(tmp_path)], says)
    assert not [*tmp_path.iterdir()]


def test_runs_that_cannot_restore_say_so(run, files, tmp_path, capsys):
    asked = [str(files / "colour.png"), "--task", "colourise", "--out", str(tmp_path / "out")]
    refused(capsys, ["restore", str(run), *asked], "is asked for a class: say with --label")
    (files / "classify.py").write_text(CLASSIFIER)
    folder = str(tmp_path / "classifier")
    assert cli.train([str(files / "classify.py"), "--run-dir", folder, "--steps", "1"]) == 0
    refused(capsys, ["restore", folder, *asked], "Classification makes no samples")


def refused(capsys, line: list[str], says: str) -> None:
    capsys.readouterr()
    assert cli.main(line) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) <= 2, said
    assert re.search(says, said), said
