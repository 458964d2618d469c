"""The commands of docs/first_day.md, in their order, on twenty pictures in a folder of their own."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image, ImageDraw
from processes import ROOT, call

SIZES = [(48, 72), (64, 64), (72, 48), (80, 120), (96, 64), (100, 100), (110, 150), (120, 90), (128, 128), (150, 200)]
# Minutes of training are not what is tried here, nor are large nets.
NARROW = ["8"] * 5
SHORT = {
    "classification/pictures_resnet10": ["--steps", "40"],
    "segmentation/pictures_unet": ["--steps", "4", "--objective.net.module.widths", "8", "8"],
    "gan/pictures_r3gan": [
        *("--steps", "2", "--batch-size", "4", "--objective.generator.module.widths", *NARROW),
        *("--objective.discriminator.module.widths", *NARROW),
    ],
    "diffusion/pictures_edm": [
        *("--steps", "2", "--batch-size", "4", "--objective.net.module.multipliers", "1", "1"),
        *("--objective.sampling.schedule.steps", "3", "--objective.side", "2"),
    ],
}


def twenty_pictures(folder: pathlib.Path) -> None:
    """Draw a red disc or a blue square on noise, ten sizes of each kind, with masks."""
    for name in ("pictures/disc", "pictures/square", "parts/images", "parts/masks"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(20):
        h, w = SIZES[i % 10]
        image = Image.fromarray(rng.integers(60, 190, (h, w, 3), np.uint8))
        mask = Image.new("L", (w, h), 0)
        r = min(h, w) // 4
        x, y = int(rng.integers(r, w - r)), int(rng.integers(r, h - r))
        for canvas, fill in ((image, ((220, 30, 30), (30, 30, 220))[i % 2]), (mask, 1)):
            shape = ImageDraw.Draw(canvas)
            (shape.ellipse if i % 2 == 0 else shape.rectangle)((x - r, y - r, x + r, y + r), fill=fill)
        image.save(folder / "pictures" / ("disc", "square")[i % 2] / f"{i:02}.jpg", quality=95)
        image.save(folder / "parts" / "images" / f"{i:02}.jpg", quality=95)
        mask.save(folder / "parts" / "masks" / f"{i:02}.png")


@pytest.mark.slow
def test_a_first_day_goes_as_the_document_says(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    twenty_pictures(home)
    text = (ROOT / "docs" / "first_day.md").read_text()
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.S) for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("jaxgen ")]
    assert {"data", "train", "eval", "predict", "sample"} == {words[0] for words in commands}
    assert set(SHORT) == {words[1] for words in commands if words[0] == "train"}
    found = {}
    for words in commands:
        more = SHORT[words[1]] if words[0] == "train" else ["--json"]
        done = call("-m", "jaxgen", *words, *more, cache=tmp_path / "cache", cwd=home, PYTHONPATH=str(ROOT))
        assert done.returncode == 0, (words, done.stderr)
        found[words[0], words[1]] = done.stdout
    assert json.loads(found["eval", "runs/which"])["metrics"]["accuracy"] == 1.0  # red is not blue
    answers = json.loads(found["predict", "runs/which"])["images"]
    assert len(answers) == 20
    for path in (home / "parts" / "images").iterdir():
        with Image.open(home / "masks" / f"{path.stem}_mask.png") as mask, Image.open(path) as image:
            assert mask.size == image.size
    for name in ("seen.png", "game.png", "noise.png", "noise/000015.png"):
        with Image.open(home / name) as picture:
            assert picture.width >= 64
