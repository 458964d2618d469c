"""A run on piano rolls: previews that are drawn, and samples that are written as pictures, MIDI files and sound."""

import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image
from processes import ROOT

from jaxgen import cli
from jaxgen.data import midi, roll
from jaxgen.data.chorales import Chorales
from jaxgen.errors import UserError
from jaxgen.metrics.music import NAMES
from jaxgen.pictures import piano_roll

CONFIG = """
import dataclasses
from small import gan
from jaxgen.data.batches import Pipeline
from jaxgen.data.chorales import FakeRolls, Transpose
from jaxgen.learner import Learner
from jaxgen.metrics.music import Music
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.objectives.gan import Gan

def config():
    base = gan()
    objective = Gan(
        generator=Learner(
            module=MlpGenerator(latent=8, shape=(16, 48, 4), width=8),
            optimizer=base.objective.generator.optimizer,
        ),
        discriminator=Learner(module=MlpDiscriminator(width=8), optimizer=base.objective.discriminator.optimizer),
        penalties=(),
        side=2,
    )
    return dataclasses.replace(
        base, objective=objective, steps=2, preview_every=2, metrics=(Music(samples=8),),
        train=Pipeline(source=FakeRolls(steps=16, size=24), transforms=(Transpose(),)),
        test=Pipeline(source=FakeRolls(steps=16, size=12, seed=1)),
    )
"""
WIDTH, HEIGHT = piano_roll.LEFT + 16 * piano_roll.CELL + 1, roll.PITCHES * piano_roll.SEMITONE + 1
SHEET = 6 + 2 * (HEIGHT + 6), 6 + 2 * (WIDTH + 6)  # of two rows of two


def pixels(path: pathlib.Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "tests"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    os.chdir(ROOT)
    folder = tmp_path_factory.mktemp("music") / "run"
    config = folder.parent / "music.py"
    config.write_text(CONFIG)
    assert cli.train([str(config), "--run-dir", str(folder)]) == 0
    return folder


def test_previews_and_measures_are_of_music(trained):
    samples, judged = (pixels(trained / f"previews/step_00000002_{name}.png") for name in ("samples", "discriminator"))
    assert samples.shape[:2] == SHEET
    assert {tuple(colour) for colour in samples.reshape(-1, 3).tolist()} >= set(piano_roll.COLOURS)
    assert len(judged) == 6 + 2 * (20 + HEIGHT + 2 * (HEIGHT // 8) + 6)  # framed, below titles
    metrics = json.loads((trained / "eval.json").read_text())["metrics"]
    assert {f"{name}{suffix}" for name in NAMES for suffix in ("", "_floor", "_independent")} <= metrics.keys()


def test_samples_are_pictures_midi_files_and_sound(trained, tmp_path, capsys):
    out, files, values = tmp_path / "x.png", tmp_path / "files", tmp_path / "x.npz"
    asked = ["sample", str(trained), "--n", "3", "--out", str(out), "--dir", str(files), "--npz", str(values), "--json"]
    assert cli.main(asked) == 0
    assert json.loads(capsys.readouterr().out)["size"] == [16, 48]
    names = [f"00000{i}.{suffix}" for i in range(3) for suffix in ("mid", "png", "wav")]
    assert sorted(path.name for path in files.iterdir()) == names
    samples = np.load(values)["samples"]
    for i, sample in enumerate(samples):
        canonical = roll.encode(*roll.decode(sample))
        there = midi.decode((files / f"00000{i}.mid").read_bytes())
        np.testing.assert_array_equal(roll.encode(*there), canonical)
        np.testing.assert_array_equal(pixels(files / f"00000{i}.png"), Chorales().picture(sample[None])[0])
    assert pixels(out).shape[:2] == SHEET


def test_rolls_are_gone_through_as_pictures(trained, tmp_path):
    out = tmp_path / "x.png"
    assert cli.main(["interpolate", str(trained), "--n", "2", "--frames", "3", "--out", str(out)]) == 0
    assert pixels(out).shape[:2] == (6 + 2 * (HEIGHT + 6), 6 + 3 * (WIDTH + 6))


def test_what_cannot_be_written_is_said_before_anything_is_made(trained, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    assert cli.main(["sample", str(trained), "--n", "1", "--dir", str(tmp_path / "file")]) == 2
    assert "it is a file" in capsys.readouterr().err

    def missing() -> None:
        raise UserError("MIDI files are written by the package mido, which is not installed")

    monkeypatch.setattr(midi, "check", missing)
    assert cli.main(["sample", str(trained), "--n", "1", "--dir", str(tmp_path / "new")]) == 2
    assert "mido" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
