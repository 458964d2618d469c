"""Prompts on the command line, pictures to start from, and words in pictures, on a run of a few seconds."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxgen import cli
from jaxgen.commands.sample_files import slug
from jaxgen.data.captioned import Captioned
from jaxgen.pictures import sheet, text

NETS = """
import flax.linen as nn, jax.numpy as jnp
from jaxgen.nn.interfaces import Encoded

class Encoder(nn.Module):
    vocabulary: int = 16
    @nn.compact
    def __call__(self, tokens, *, train: bool):
        text = nn.Embed(self.vocabulary, 4)(tokens)
        return Encoded(text=text, pooled=text.sum(1), mask=tokens > 0)

class Reader(nn.Module):
    classes: int = 0
    @nn.compact
    def __call__(self, x, noise, condition, *, train: bool):
        seen = nn.Dense(x.shape[-1])(condition["pooled"]) + nn.Dense(x.shape[-1])(noise[:, None])
        return nn.Dense(x.shape[-1])(x) + seen[:, None, None]
"""
CONFIG = """
import dataclasses
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeCaptions
from jaxgen.data.tokenizers import Tokenize, Words
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import LogNormal
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Euler
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.objectives.text import Text
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant
from nets import Encoder, Reader

def config():
    source = FakeCaptions(height=8, width=8, channels=3, size=32, colours=6)
    tokens = Tokenize(tokenizer=Words(source=source, length=6))
    optimizer = Optimizer(learning_rate=Constant(value=1e-2))
    return Experiment(
        objective=Diffusion(
            net=Learner(module=Reader(), optimizer=optimizer),
            text=(Text(encoder=Learner(module=Encoder(), optimizer=optimizer)),),
            path=Edm(),
            prediction=EdmPreconditioning(sigma_data=0.5),
            noise_distribution=LogNormal(),
            sampling=Sampling(solver=Euler(), schedule=Rho(steps=4), guidance=ClassifierFree(scale=2.0, low=0.1)),
            condition_dropout=0.2,
            side=2,
        ),
        train=Pipeline(source=source, transforms=(tokens,)),
        test=Pipeline(source=dataclasses.replace(source, size=5, seed=1), transforms=(tokens,)),
        steps=4, batch_size=8, test_batch_size=8, log_every=2, checkpoint_every=4, preview_every=4,
    )
"""
A, B = "noise of colour 3", "colour of noise 1"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "nets.py").write_text(NETS)
    (folder / "mine.py").write_text(CONFIG)
    before = os.getcwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        assert cli.train(["mine.py", "--run-dir", "run"]) == 0
    os.chdir(before)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / "small.png")
    Image.fromarray(rng.integers(0, 256, (20, 31), np.uint8)).save(folder / "grey.png")
    return folder


@pytest.fixture(autouse=True)
def _inside(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))


def said(capsys, *arguments: str):
    capsys.readouterr()
    status = cli.main([*arguments, "--json"])
    out = capsys.readouterr()
    assert status == 0, out.err
    return json.loads(out.out), out.err


def sampled(capsys, tmp_path, *options: str):
    npz = tmp_path / "made.npz"
    found, _ = said(capsys, "sample", "run", "--npz", str(npz), *options)
    return np.load(npz), found


def test_prompts_are_for_the_samples_in_turn(capsys, tmp_path):
    made, found = sampled(capsys, tmp_path, "--prompt", A, "--prompt", B)
    assert (found["n"], found["prompts"]) == (2, [A, B])
    assert made["prompts"].tolist() == [A, B]
    five, _ = sampled(capsys, tmp_path, "--prompt", A, "--prompt", B, "--n", "5")
    assert five["prompts"].tolist() == [A, B, A, B, A]
    np.testing.assert_allclose(five["samples"][:2], made["samples"], atol=1e-5)
    other, _ = sampled(capsys, tmp_path, "--prompt", B, "--prompt", B)
    assert np.abs(other["samples"][0] - made["samples"][0]).max() > 1e-4
    np.testing.assert_allclose(other["samples"][1], made["samples"][1], atol=1e-5)
    (tmp_path / "texts").write_text(f"\ufeff{A}\n\n  {B} \n", encoding="utf-8")
    again, _ = sampled(capsys, tmp_path, "--prompts", str(tmp_path / "texts"))
    assert again["prompts"].tolist() == [A, B]


def test_without_prompts_the_test_captions_are_shown(capsys, tmp_path):
    made, found = sampled(capsys, tmp_path, "--n", "7")
    assert all(re.fullmatch(r"noise of colour \d", each) for each in found["prompts"])
    assert made["prompts"][5] == made["prompts"][0]  # five test examples


def test_guidance_is_a_number_or_a_value(capsys, tmp_path):
    three, found = sampled(capsys, tmp_path, "--prompt", A, "--guidance", "3")
    assert found["protocol"]["guidance"] == "ClassifierFree(scale=3.0, low=0.1, high=inf, rescale=0.0)"  # the run's own
    unguided, found = sampled(capsys, tmp_path, "--prompt", A, "--guidance", "1")
    assert found["protocol"]["nfe"] == 4
    assert np.abs(three["samples"] - unguided["samples"]).max() > 1e-4
    away, found = sampled(capsys, tmp_path, "--prompt", A, "--guidance", "3", "--negative", B)
    assert found["negative"] == B
    assert np.abs(three["samples"] - away["samples"]).max() > 1e-4
    itself, _ = sampled(capsys, tmp_path, "--prompt", A, "--negative", A)
    np.testing.assert_allclose(itself["samples"], unguided["samples"], atol=1e-5)


def test_files_are_named_by_their_prompts_and_can_be_trained_on(capsys, tmp_path):
    folder, png = tmp_path / "made", tmp_path / "made.png"
    said(capsys, "sample", "run", "--prompt", A, "--prompt", "", "--dir", str(folder), "--out", str(png))
    assert {path.name for path in folder.iterdir()} == {"000000_noise-of-colour-3.png", "000001.png", "metadata.jsonl"}
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert rows[0] == {"file_name": "000000_noise-of-colour-3.png", "text": A}
    assert [str(example["caption"]) for example in Captioned(path=str(folder)).open()] == [A, ""]
    plain = tmp_path / "plain.png"
    said(capsys, "sample", "run", "--prompt", "", "--n", "2", "--out", str(plain))
    with Image.open(png) as words, Image.open(plain) as none:
        assert words.height > none.height


def test_a_long_prompt_is_cut_and_says_so(capsys, tmp_path):
    long = f"{A} of noise"
    made, err = said(capsys, "sample", "run", "--prompt", long, "--npz", str(tmp_path / "a.npz"))
    assert f"--prompt is longer than the 6 tokens: kept '{A}', cut 'of noise'" in err
    assert made["prompts"] == [long]


def test_a_picture_is_changed_by_strength(capsys, tmp_path):
    with Image.open("small.png") as opened:
        picture = np.asarray(opened) / 127.5 - 1
    start = ("--image", "small.png", "--prompt", A)
    made = {s: sampled(capsys, tmp_path, *start, "--n", "3", "--strength", s)[0]["samples"] for s in ("0", "0.4", "1")}
    np.testing.assert_allclose(made["0"], np.stack([picture] * 3), atol=1e-6)
    plain, _ = sampled(capsys, tmp_path, "--prompt", A, "--n", "3")
    np.testing.assert_allclose(made["1"], plain["samples"], atol=1e-5)
    assert np.abs(made["0.4"][0] - made["0.4"][1]).max() > 1e-2  # each its own noise
    _, found = sampled(capsys, tmp_path, "--image", "small.png", "--strength", "0.5")
    assert (found["n"], found["prompts"], found["strength"], found["inverted"]) == (1, [""], 0.5, False)
    _, err = said(capsys, "sample", "run", "--image", "grey.png", "--strength", ".3", "--npz", str(tmp_path / "a.npz"))
    assert "note: grey.png is brought to 8×8, the size of samples" in err


def test_a_picture_is_inverted_and_made_again(capsys, tmp_path):
    with Image.open("small.png") as opened:
        picture = np.asarray(opened) / 127.5 - 1
    start = ("--image", "small.png", "--invert", "--guidance", "1", "--schedule", "Rho(steps=50)", "--solver", "Heun()")
    same, found = sampled(capsys, tmp_path, *start, "--shows", A)
    assert (found["prompts"], found["inverted"]) == ([A], True)
    np.testing.assert_allclose(same["samples"][0], picture, atol=0.03)
    none, _ = sampled(capsys, tmp_path, *start)
    np.testing.assert_allclose(none["samples"][0], picture, atol=0.03)
    other, _ = sampled(capsys, tmp_path, *start, "--shows", A, "--prompt", B)
    assert np.abs(other["samples"] - same["samples"]).max() > 0.03


def test_a_text_goes_to_another_under_the_same_noise(capsys, tmp_path):
    png, gif = tmp_path / "way.png", tmp_path / "way.gif"
    way = ("interpolate", "run", "--prompt", A, "--prompt", B, "--frames", "3", "--out")
    found, _ = said(capsys, *way, str(png))
    assert (found["n"], found["prompts"]) == (1, [A, B])
    ends, _ = sampled(capsys, tmp_path, "--prompt", A)
    with Image.open(png) as picture:
        page = np.asarray(picture)[6:, 6:][:96:12, :96:12].astype(int)
    np.testing.assert_allclose(page, np.round((ends["samples"][0] + 1) * 127.5).clip(0, 255), atol=1)
    said(capsys, *way, str(gif))
    with Image.open(gif) as picture:
        assert picture.n_frames == 6  # there and back


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        (("--prompt", "noise of color 3"), r"has never read 'color' \(perhaps you meant colour\)"),
        (("--prompt", "고양이"), "'고양이': the run has never read '고양이'$"),
        (("--prompt", "a b c d"), "never read 'a', 'b', 'c', and 1 more"),
        (("--negative", "nose", "--prompt", A), r"--negative 'nose': .*perhaps you meant noise"),
        (("--negative", " ", "--prompt", A), "--negative is empty"),
        (("--negative", B, "--prompt", A, "--guidance", "1"), r"--negative does nothing with ClassifierFree\(scale=1"),
        (("--negative", B, "--guidance", "Unguided()"), r"--negative does nothing with Unguided\(\)"),
        (("--prompts", "empty.txt"), "--prompts empty.txt is empty; write a prompt in each line"),
        (("--prompts", "none.txt"), "cannot read --prompts none.txt: No such file"),
        (("--prompts", "small.png"), "is no text in UTF-8"),
        (("--label", "1", "--prompt", A), "drop --label"),
        (("--strength", "0.5"), "--strength is for a picture: add --image"),
        (("--invert",), "--invert is for a picture: add --image"),
        (("--image", "small.png"), "needs one of --strength S"),
        (("--image", "small.png", "--strength", "0.5", "--invert"), "needs one of --strength S"),
        (("--image", "small.png", "--strength", "1.5"), r"strength is 1\.5; it lies in 0\.\.1"),
        (("--image", "small.png", "--strength", "nan"), "strength is nan"),
        (("--image", "none.png", "--strength", "0.5"), "there is no image none.png"),
        (("--image", "empty.txt", "--strength", "0.5"), "empty.txt"),
        (("--image", "small.png", "--strength", "0.5", "--shows", A), "--shows is for --invert"),
        (("--image", "small.png", "--invert", "--shows", "nose"), r"--shows 'nose': .*perhaps you meant noise"),
        (("--image", "small.png", "--invert", "--schedule", "Rho(steps=1)"), "2 steps or more"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(project, tmp_path, capsys, options, pattern):
    (project / "empty.txt").write_text("\n  \n")
    capsys.readouterr()
    assert cli.main(["sample", "run", "--out", str(tmp_path / "a.png"), *options]) == 2
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) <= 2, err
    assert re.search(pattern, err.strip(), re.MULTILINE), err


def test_words_that_changed_since_the_training_are_refused(project, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree("run", folder)
    known = json.loads((folder / "data.json").read_text())
    (folder / "data.json").write_text(json.dumps(known | {"words": "0123"}))
    for command in (["sample", "run", "--prompt", A, "--out", "a.png"], ["eval", "run"]):
        assert cli.main([*command[:1], str(folder), *command[2:]]) == 2
        assert "the captions' words are others than when the run was trained" in capsys.readouterr().err


def test_one_prompt_is_no_way(tmp_path, capsys):
    capsys.readouterr()
    assert cli.main(["interpolate", "run", "--prompt", A, "--out", str(tmp_path / "a.png")]) == 2
    assert "there must be at least 2" in capsys.readouterr().err


# --- words in pictures ------------------------------------------------------------------------------------------------


def test_texts_are_wrapped():
    lines = text.wrapped("a red 3 left of a blue 7, above a green 1", 13, 96, 4)
    assert " ".join(lines) == "a red 3 left of a blue 7, above a green 1"
    assert len(lines) > 1
    assert all(text.length(line, 13) <= 96 for line in lines)
    two = text.wrapped("a red 3 left of a blue 7, above a green 1, and more", 13, 96, 2)
    assert len(two) == 2
    assert two[1].endswith("…")
    assert text.length(two[1], 13) <= 96
    word = text.wrapped("incomprehensibilities", 13, 40, 9)
    assert "".join(word) == "incomprehensibilities"
    assert all(text.length(line, 13) <= 40 for line in word)
    assert text.wrapped("", 13, 40, 9) == []
    assert text.wrapped("WW", 13, 1, 9) == ["W", "W"]


def test_letters_without_a_font_are_said_once(capsys, monkeypatch):
    text._found.cache_clear()
    monkeypatch.setattr(text, "_of_system", lambda: ())
    capsys.readouterr()
    assert text.legible(["a cat", "빨간 3", "빨간 3"]) == ["a cat", "?? 3", "?? 3"]
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "no font here has 빨간 beside" in err
    text._found.cache_clear()


def test_a_sheet_has_a_text_below_each_image():
    images = np.zeros((3, 8, 8, 3), np.float32)
    page = sheet.samples(images, None, (), 2, ("a red 3 left of a blue 7", "", "a"))
    plain = sheet.samples(images, None, (), 2)
    assert page.shape[0] > plain.shape[0]
    below = page[6 + 96 : 6 + 96 + 30]
    assert (below[:, 6:102] < 128).any()
    assert (below[:, 110:] == 255).all()


def test_names_of_files_hold_the_words():
    assert slug("A red 3, left of:\na blue/7") == "a-red-3-left-of-a-blue-7"
    assert slug("빨간 사과") == "빨간-사과"
    assert len(slug("사과 " * 80).encode()) <= 100
    assert slug("…") == ""
