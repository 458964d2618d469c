"""The embedded data sets: what they say is true, training and test share nothing, and they prepare themselves."""

import ast
import dataclasses
import hashlib
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from jaxgen.data import builders, render
from jaxgen.data.digits import Digits
from jaxgen.data.scenes import PAIRS, DrawnScenes, Scenes
from jaxgen.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
NOUN = re.compile(r"(an?) (\w+) (\d)")


@pytest.fixture(scope="module", params=["train", "test"])
def drawn(request: pytest.FixtureRequest) -> list[render.Scene]:
    return list(render.scenes(request.param, 120))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> pathlib.Path:
    """An empty data folder, and scenes few enough to prepare in a test."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(builders, "SIZES", {"train": 24, "test": 10})
    return tmp_path


def test_digits_are_split_once_and_evenly_over_the_classes() -> None:
    (train, train_labels), (test, test_labels) = render.digits("train"), render.digits("test")
    assert (len(train), len(test)) == (1437, 360)
    data = load_digits()
    both = np.concatenate([train, test]).reshape(1797, -1)
    whole = np.round(data.images * 255 / 16).astype(np.uint8).reshape(1797, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole))
    assert np.abs(np.bincount(test_labels) - np.bincount(data.target) / 5).max() <= 1
    assert np.array_equal(np.bincount(train_labels) + np.bincount(test_labels), np.bincount(data.target))


def test_photographs_are_split_into_columns_that_do_not_meet() -> None:
    columns = [set(range(a, b)) for strips in render.COLUMNS.values() for a, b in strips]
    assert sum(map(len, columns)) == len(set().union(*columns)) <= 640
    train, test = ({p.tobytes() for p in render.material(split).photographs} for split in ("train", "test"))
    assert train.isdisjoint(test)
    assert all(min(p.size) > render.CROPS[1] for split in render.COLUMNS for p in render.material(split).photographs)


def test_scene_i_is_a_function_of_i() -> None:
    few, more = list(render.scenes("train", 3)), list(render.scenes("train", 5))
    assert [s.caption for s in few] == [s.caption for s in more[:3]]
    assert all(a.image == b.image and a.mask == b.mask for a, b in zip(few, more, strict=False))
    assert len({s.image.tobytes() for s in [*more, *render.scenes("test", 5)]}) == 10


def test_masks_hold_the_digits_and_boxes_are_their_edges(drawn: list[render.Scene]) -> None:
    counts = set()
    for scene in drawn:
        mask = np.asarray(scene.mask)
        assert scene.image.size == scene.mask.size == (64, 64)
        assert set(np.unique(mask)) == {0, *scene.labels.tolist()}
        assert set(scene.labels.tolist()) <= set(range(1, 11))
        seen = np.zeros((64, 64), bool)
        for (x0, y0, x1, y1), label in zip(scene.boxes.astype(int), scene.labels, strict=True):
            inside = mask[y0:y1, x0:x1] == label
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
            assert not seen[y0:y1, x0:x1].any()  # boxes keep clear of each other
            seen[y0:y1, x0:x1] = True
        assert not mask[~seen].any()
        counts.add(len(scene.labels))
    assert counts == {2, 3, 4, 5}


def test_captions_are_true(drawn: list[render.Scene]) -> None:
    relations = set()
    for scene in drawn:
        pixels, mask = np.asarray(scene.image).astype(float), np.asarray(scene.mask)
        order = np.argsort(scene.boxes[:, 0] + scene.boxes[:, 2], kind="stable")
        nouns = NOUN.findall(scene.caption)
        assert len(nouns) == len(order)
        for (article, name, digit), k in zip(nouns, order, strict=True):
            assert int(digit) + 1 == scene.labels[k]
            assert article == ("an" if name == "orange" else "a")
            x0, y0, x1, y1 = scene.boxes[k].astype(int)
            colour = np.median(pixels[y0:y1, x0:x1][mask[y0:y1, x0:x1] > 0], axis=0)
            distances = np.linalg.norm(render.tones()[0] - render.oklab(colour[None]), axis=1)
            assert list(render.COLOURS)[distances.argmin()] == name  # what the eye sees is what the caption says
        between = NOUN.sub("|", scene.caption).strip("|").split("|")
        for text, a, b in zip(between, order[:-1], order[1:], strict=True):
            relation = text.removeprefix(", which is").strip()
            first, second = scene.boxes[a], scene.boxes[b]
            assert {
                "left of": first[2] <= second[0],
                "right of": second[2] <= first[0],
                "above": first[3] <= second[1],
                "below": second[3] <= first[1],
            }[relation]
            relations.add(relation)
    assert {"left of", "above", "below"} <= relations


def test_digits_stand_out(drawn: list[render.Scene]) -> None:
    contrasts = []
    for scene in drawn:
        pixels, mask = np.asarray(scene.image).astype(float), np.asarray(scene.mask)
        for x0, y0, x1, y1 in scene.boxes.astype(int):
            part, inside = pixels[y0:y1, x0:x1], mask[y0:y1, x0:x1] > 0
            ink, paper = (render.oklab(np.median(part[where], axis=0)[None]) for where in (inside, ~inside))
            contrasts.append(np.linalg.norm(ink - paper))
    assert np.quantile(contrasts, 0.02) > 0.12
    assert np.median(contrasts) > 0.3


def test_sources_prepare_themselves_and_read_what_was_drawn(small: pathlib.Path, capfd: pytest.CaptureFixture) -> None:
    for split, count in builders.SIZES.items():
        examples = Scenes(split).open()
        assert len(examples) == count
        assert examples.classes == ("background", *"0123456789")
        for i, scene in enumerate(render.scenes(split, count)):
            example = examples[i]
            assert np.array_equal(example["image"], np.asarray(scene.image))
            assert np.array_equal(example["mask"], np.asarray(scene.mask))
            assert np.array_equal(example["boxes"], scene.boxes)
            assert np.array_equal(example["labels"], scene.labels)
            assert str(example["caption"]) == scene.caption
    for split in ("train", "test"):
        scans, labels = render.digits(split)
        examples = Digits(split).open()
        assert examples.classes == tuple("0123456789")
        assert np.array_equal([e["image"][..., 0] for e in map(examples.__getitem__, range(len(examples)))], scans)
        assert np.array_equal([examples[i]["label"] for i in range(len(examples))], labels)
    out, err = capfd.readouterr()
    assert out == ""  # standard output belongs to --json
    assert err.count("preparing") == 2


def test_whoever_is_slower_takes_what_the_faster_has_written(
    small: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = render.scenes

    def overtaken(split: str, count: int):
        yield from scenes(split, count)
        monkeypatch.setattr(render, "scenes", scenes)
        builders.prepared(builders.ScenesBuilder)  # another process, done before this one is

    monkeypatch.setattr(render, "scenes", overtaken)
    assert sorted(builders.prepared(builders.ScenesBuilder).info.splits) == ["test", "train"]
    assert render.scenes is scenes
    assert os.listdir(small / "scenes") == ["1.0.0"]  # nothing half-written is left


CHILD = """
import hashlib, sys
from jaxgen.data import builders
from jaxgen.data.scenes import PAIRS, DrawnScenes, Scenes
builders.SIZES = {"train": 300, "test": 8}
examples = Scenes("train").open()
print(hashlib.sha256(b"".join(examples[i]["image"].tobytes() for i in range(300))).hexdigest())
assert not {"tensorflow", "torch", "flax", "optax"} & set(sys.modules)
"""


@pytest.mark.slow
def test_two_processes_may_prepare_at_once_and_no_device_is_touched(tmp_path: pathlib.Path) -> None:
    # A platform that does not exist: whoever asks jax for a device fails.
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path), "JAX_PLATFORMS": "none", "PYTHONPATH": str(ROOT)}
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    digest = hashlib.sha256(b"".join(scene.image.tobytes() for scene in render.scenes("train", 300))).hexdigest()
    assert [child.communicate(timeout=120)[0] for child in children] == [f"{digest}\n"] * 2
    assert [child.returncode for child in children] == [0, 0]
    assert os.listdir(tmp_path / "scenes") == ["1.0.0"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set TFDS_DATA_DIR"):
        Digits().open()


def test_data_import_neither_jax_nor_what_lies_above() -> None:
    files = sorted((ROOT / "jaxgen" / "data").glob("*.py"))
    assert len(files) > 8
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert name.split(".")[0] not in {"jax", "flax", "optax", "tensorflow", "torch"}, f"{file}: {name}"
                assert (
                    not name.startswith("jaxgen")
                    or name in ("jaxgen.typing", "jaxgen.errors", "jaxgen.progress", "jaxgen.pictures")
                    or name.startswith("jaxgen.data")
                )


def test_mask_and_stroke_agree() -> None:
    """Paint a digit in white over black: its mask is where at least half of the pixel is white."""
    scan = Image.fromarray(np.pad(render.digits("train")[0][0], 2))
    stroke = render._stroke(scan, 3.0, np.random.default_rng(0))
    assert stroke.dtype == np.uint8
    assert stroke.max() == 255
    assert 0.2 < (stroke >= render.INSIDE).mean() < 0.8


@pytest.mark.parametrize("split", ["train", "test", "held_out"])
@pytest.mark.parametrize("ground", ["photograph", "plain"])
def test_scenes_drawn_when_they_are_read_are_functions_of_their_number(split, ground):
    source = DrawnScenes(split=split, size=12, most=2, ground=ground, without=PAIRS)
    examples, others = source.open(), dataclasses.replace(source, size=30).open()
    assert (len(examples), examples.classes[:2]) == (12, ("background", "0"))
    for i, caption in enumerate(source.captions()):
        one, again = examples[i], others[i]
        assert all(np.array_equal(one[key], again[key]) for key in ("image", "mask"))
        assert one["caption"] == caption
        shown = [(colour, int(digit)) for _, colour, digit in NOUN.findall(caption)]
        assert any(pair in PAIRS for pair in shown) == (split == "held_out")
        assert len(shown) == 2
        assert set(np.unique(one["mask"])) == {0, *(digit + 1 for _, digit in shown)}
    plain = len({tuple(pixel) for pixel in examples[0]["image"][:2].reshape(-1, 3)}) == 1
    assert plain == (ground == "plain")


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"most": 6}, "2 to 5"), ({"split": "held_out"}, "without"), ({"without": (("red", 12),)}, "12")],
)
def test_scenes_that_cannot_be_drawn_are_refused(fields, named):
    with pytest.raises(UserError, match=named):
        DrawnScenes(**fields)
