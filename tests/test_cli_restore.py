"""`jaxgen restore` on a run of a moment: every task, what it writes, and bad input in a line."""

import json
import math
import os
import re

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from processes import ROOT

from jaxgen import cli
from jaxgen.commands import damages
from jaxgen.commands.damaged import as_floats, found, tried
from jaxgen.commands.output import Parser
from jaxgen.data.jpeg import jpeg_tables, through_jpeg
from jaxgen.data.masks import MASKS
from jaxgen.data.noise_level import noise_level
from jaxgen.errors import UserError
from jaxgen.restoration.daps import Daps
from jaxgen.restoration.methods import TRAINED

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
    Image.fromarray(colour[:2, :3]).save(folder / "tiny.png")
    holes = np.zeros((8, 12), np.uint8)
    holes[2:5, 3:8] = 255
    Image.fromarray(holes).save(folder / "mask.png")
    Image.fromarray(holes[:6]).save(folder / "low.png")
    Image.fromarray(0 * holes).save(folder / "black.png")
    wide = np.clip(128 + 60 * np.sin(np.arange(20)[None, :, None] / 3) + draw.normal(size=(8, 20, 3), scale=20), 0, 255)
    Image.fromarray(wide.astype(np.uint8)).save(folder / "wide.png")
    Image.fromarray(wide.astype(np.uint8)).save(folder / "wide.jpg", quality=30)
    Image.fromarray(wide.astype(np.uint8)).save(folder / "odd.jpg", quality=30, subsampling="4:2:2")
    exif[0x0112] = 3
    Image.fromarray(wide.astype(np.uint8)).save(folder / "turned.jpg", exif=exif)
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
        pytest.param(("deblur", "--sigma", "1"), "alpha.png", marks=pytest.mark.by_hand),
        (("denoise", "--sigma", "0.2"), "palette.png"),
        pytest.param(("colourise",), "deep.png", marks=pytest.mark.by_hand),
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
    # Two calls, 2 evaluations each for guidance; at the lower level each has products with a derivative beside it.
    assert said["protocol"]["nfe"] == (None if task[0] == "denoise" else 2 * 1 + 2 * (1 + TRAINED.iterations))
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
def test_a_method_that_is_a_solver_takes_the_solvers_place(run, files, tmp_path, capsys):
    words = (files / "colour.png", "--task", "deblur", "--sigma", "0.5", "--method", "Daps()")
    said = restored(capsys, run, tmp_path, *words)
    assert said["protocol"]["solver"] == said["protocol"]["method"] == repr(Daps())
    assert pixels(said["images"][0]["out"]).shape == pixels(files / "colour.png").shape


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
        ("colour.png --task sr --factor 3 --try", "factor of 3 does not divide a side of 8"),
        ("small.png --task sr --factor 3 --resize", "factor of 3 does not divide the 8×12 of this run"),
        ("small.png --task sr --factor 1", "--factor is 1"),
        ("tiny.png --task sr --factor 2", "tiny.png is 2×3, and this run needs at least 4×6 to make 8×12"),
        ("small.png --task deblur --sigma 1", "small.png is 4×6, and this run needs at least 8×12; --resize"),
        ("wide.png --task inpaint --mask mask.png", "the mask .*mask.png is 8×12, and the pictures are 8×20"),
        ("colour.png --task motion", "--task motion needs --length"),
        ("colour.png --task motion --length 0.2", "number of pixels, 1 or more"),
        ("colour.png --task motion --length 9", "leaves nothing of a picture of 8×12"),
        ("colour.png --task motion --length 3 --angle 400", "number of degrees"),
        ("colour.png --task sr --factor 2 --border wrap", "--border is for deblur and motion and old, not for sr"),
        ("colour.png --task jpeg", "is no JPEG that says how it was written: say with --quality"),
        ("colour.png --task jpeg --try", "--try needs --quality"),
        ("colour.png --task denoise --try", "--try needs --sigma"),
        ("colour.png --task jpeg --quality 0.3", "whole number from 1 to 100; of 0 to 1 that is 30"),
        ("colour.png --task jpeg --quality 30 --resize", "--resize would mix the blocks"),
        ("wide.jpg --task jpeg --quality 60", "written with a quality of about 30, not 60; drop --quality"),
        ("odd.jpg --task jpeg", "chroma is coarser by 2×1"),
        ("turned.jpg --task jpeg", "is turned by EXIF"),
        ("colour.png --task quantise --levels 1", "2 to 255 values"),
        ("colour.png --task quantise --levels 4", "values in a channel, more than --levels 4"),
        ("black.png --task denoise", "no noise is seen in it; say with --sigma"),
        ("colour.png --task denoise --sigma 25", "pixels from 0 to 1, above 0; of 255 levels that is 0.098"),
        ("colour.png --task denoise --sigma -0.1", "--sigma is -0.1"),
        ("colour.png --task deblur --sigma 1 --noise 3", "--noise is 3"),
        ("colour.png --task deblur --sigma 20", "leaves nothing"),
        ("colour.png --task old", "what age did"),
        ("colour.png --task old --fade 0 1", "--fade is 0 1"),
        ("colour.png --task denoise --sigma 0.1 --method Ddnm()", "--method is for damage other than noise"),
        ("colour.png --task old --sigma 1 --method Ddnm()", "pseudo-inverse"),
        ("colour.png --task deblur --sigma 1 --method Dps()", "there is no Dps"),
        ("colour.png --task deblur --sigma 1 --method Daps() --solver Euler()", "Daps is a solver of its own"),
        ("colour.png --task upscale", "invalid choice"),
        ("colour.png --task colourise --samples 0", "--samples is 0"),
        ("no.png --task colourise", "no.png"),
        ("none.png --task colourise", "there is no image"),
    ],
)
def test_bad_input_is_a_line(run, files, tmp_path, capsys, words, says):
    line = [str(files / word) if word.endswith((".png", ".jpg")) else word for word in words.split()]
    refused(capsys, ["restore", str(run), *line, "--label", "1", "--out", str(tmp_path)], says)
    assert not [*tmp_path.iterdir()]


def told(*words: str):
    parser = Parser("restore", "")
    damages.add_options(parser)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(["--task", *words])
    args.resize = False
    damages.check(args)
    return args


def fits(made, whole) -> float:
    """Return how far a picture is from what was measured, over the noise."""
    return float(made.damage.mismatch(jnp.asarray(as_floats(whole)), jnp.asarray(made.measured))[0]) / made.damage.noise


TRIED = {
    "inpaint": ("--mask", "box"),
    "sr": ("--factor", "2", "--kernel", "bicubic"),
    "deblur": ("--sigma", "1"),
    "motion": ("--length", "5", "--angle", "30"),
    "denoise": ("--sigma", "0.05"),
    "jpeg": ("--quality", "40"),
    "quantise": ("--levels", "8"),
    "colourise": ("--noise", "0.03"),
    "old": ("--mask", "strokes", "--fade", "0.6", "0.2", "--sigma", "0.6"),
}


@pytest.mark.parametrize("task", damages.TASKS)
def test_a_whole_picture_that_is_damaged_to_try_fits_its_damage_to_the_noise(task):
    """Of the truth itself, what is measured is as far away as the noise; of a file the same is read."""
    args = told(task, *TRIED[task], "--try")
    y, x = np.mgrid[:32, :48] / 9
    whole = 127 + 70 * np.stack([np.sin(x + y), np.cos(x - y), np.sin(2 * x)], -1)
    whole = np.clip(whole + np.random.default_rng(0).normal(size=whole.shape, scale=12), 0, 255).astype(np.uint8)
    made = tried(args, whole)
    fit = fits(made, whole)
    if task == "jpeg":  # coefficients below half a step are off by less than a step's deviation
        assert 0.3 < fit < 1.05
    else:
        assert fit == pytest.approx(1, abs=0.06)
    again = tried(args, whole)
    np.testing.assert_array_equal(made.pixels, again.pixels)
    assert (made.holes is not None) == (task in ("inpaint", "old"))
    assert made.pixels.shape == {"sr": (16, 24, 3), "colourise": (32, 48, 1)}.get(task, (32, 48, 3))


def test_a_jpeg_says_itself_how_it_was_written(files):
    whole = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    for subsampling, halved in (("4:4:4", False), ("4:2:0", True)):
        Image.fromarray(whole).save(files / "own.jpg", quality=35, subsampling=subsampling)
        pixels_there = pixels(files / "own.jpg")
        made = found(told("jpeg"), files / "own.jpg", pixels_there, (24, 24, 3))
        said = found(told("jpeg", "--quality", "35"), files / "own.jpg", pixels_there, (24, 24, 3))
        assert jpeg_tables(files / "own.jpg", "own.jpg").halved == halved
        np.testing.assert_array_equal(made.measured, said.measured)
        assert fits(made, whole) == pytest.approx(1, abs=0.2)
    grey = through_jpeg(whole[..., :1], 35)
    Image.fromarray(whole[..., 0]).save(files / "grey.jpg", quality=35)
    np.testing.assert_array_equal(pixels(files / "grey.jpg"), grey[..., 0])
    for channels in (1, 3):
        as_read = np.repeat(grey, channels, -1)
        made = found(told("jpeg"), files / "grey.jpg", as_read, (24, 24, channels))
        assert np.isfinite(made.measured).all()
    assert jpeg_tables(files / "colour.png", "colour.png") is None


@pytest.mark.parametrize(("kind", "share"), [("box", 0.25), ("random", 0.5), ("strokes", 0.3)])
def test_masks_that_are_drawn_cover_what_they_say(kind, share):
    for size in ((8, 12), (64, 48), (200, 200)):
        holes = [MASKS[kind](np.random.default_rng(seed), size) for seed in (0, 0, 1)]
        np.testing.assert_array_equal(holes[0], holes[1])
        assert (holes[0] != holes[2]).any()
        assert holes[0].shape == size
        assert holes[0].mean() == pytest.approx(share, abs=4 * math.sqrt(0.25 / math.prod(size)) + 0.06)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
def test_the_noise_of_a_smooth_picture_is_estimated_within_a_twentieth(sigma):
    y, x = np.mgrid[:128, :161] / 20
    smooth = 0.5 + 0.3 * np.sin(x) * np.cos(y) + 0.3 * (x + y > 7)
    noisy = smooth + sigma * np.random.default_rng(0).standard_normal(smooth.shape)
    assert noise_level(noisy[..., None]) == pytest.approx(sigma, rel=0.05)
    assert noise_level(smooth[..., None]) < 0.002


def test_a_larger_picture_is_restored_through_windows_and_held_against_the_truth(run, files, tmp_path, capsys):
    words = ("--task", "jpeg", "--quality", "30", "--try", "--samples", "2")
    said = restored(capsys, run, tmp_path, files / "wide.png", *words)
    (row,) = said["images"]
    assert row["windows"] == 3
    assert pixels(row["out"]).shape == pixels(row["damaged"]).shape == (8, 20, 3)
    assert pixels(row["strip"]).ndim == 3
    truth, damaged = (pixels(path).astype(float) for path in (files / "wide.png", row["damaged"]))
    assert row["psnr_damaged"] == pytest.approx(10 * math.log10(255**2 / np.square(truth - damaged).mean()), abs=0.01)
    mean = pixels(row["mean"]).astype(float)
    assert row["psnr_mean"] == pytest.approx(10 * math.log10(255**2 / np.square(truth - mean).mean()), abs=0.1)


@pytest.mark.by_hand
def test_noise_that_nobody_knows_is_estimated_in_windows_too(run, files, tmp_path, capsys):
    said = restored(capsys, run, tmp_path, files / "wide.png", "--task", "denoise")
    assert pixels(said["images"][0]["out"]).shape == (8, 20, 3)
    args = told("denoise")
    sigma = found(args, files / "wide.png", pixels(files / "wide.png"), (8, 20, 3)).damage.noise / 2
    assert sigma == pytest.approx(20 / 255, rel=0.3)
    with pytest.raises(UserError, match="no noise"):
        found(args, files / "black.png", np.zeros((8, 12, 3), np.uint8), (8, 12, 3))


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
