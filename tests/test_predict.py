"""What `jaxgen predict` finds is what `jaxgen eval` measures, at the picture's own size, for all that people name."""

import dataclasses
import json
import os
import pathlib
import re

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image as Pillow
from processes import ROOT
from small import Linear

from jaxgen import cli
from jaxgen.commands import output
from jaxgen.commands import predict as command
from jaxgen.commands.pictures import pictures
from jaxgen.data import batches, frame
from jaxgen.data.augment import (
    Affine,
    CenterCrop,
    Flip,
    PadTo,
    PadToMultiple,
    Resize,
    ResizeShort,
)
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Folder, SegmentationFolder
from jaxgen.errors import UserError
from jaxgen.evaluation import evaluate
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.metrics.accumulators import predicted as decided
from jaxgen.objective import Image
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.program import Program
from jaxgen.runs.restore import Restored
from jaxgen.supervised.inference import Inference, Sliding, Tta, Whole
from jaxgen.typing import IGNORE

COLOURS = np.array([[128, 128, 128], [220, 20, 20], [20, 20, 220]], np.uint8)
CLASSES = ("ground", "disc", "square")
WHOLE = Whole()


class Copy(nn.Module):
    """A segmenter that names the nearest colour: nothing has to be trained."""

    classes: int = 3

    @nn.compact
    def __call__(self, image, *, train: bool):
        colours = jnp.asarray(COLOURS, jnp.float32) / 127.5 - 1
        logits = image @ (2 * colours.T) - jnp.square(colours).sum(-1).reshape(1, 1, 1, -1)
        return logits + self.param("bias", nn.initializers.zeros, (1, 1, 1, self.classes))


def scene(h: int, w: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a disc and a square on noisy ground, and its mask."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:h, :w]
    side = min(h, w)
    cy, cx, r = rng.uniform(0.25, 0.4) * h, rng.uniform(0.25, 0.4) * w, 0.2 * side
    mask = ((y - cy) ** 2 + (x - cx) ** 2 < r**2).astype(np.uint8)
    top, left = int(rng.uniform(0.5, 0.6) * h), int(rng.uniform(0.5, 0.6) * w)
    mask[top : top + int(0.35 * side), left : left + int(0.35 * side)] = 2
    noise = rng.integers(-15, 16, (h, w, 3))
    return np.clip(COLOURS[mask].astype(int) + noise, 0, 255).astype(np.uint8), mask


def scenes(root: pathlib.Path, sizes: list[tuple[int, int]]) -> SegmentationFolder:
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i, (h, w) in enumerate(sizes):
        picture, mask = scene(h, w, i)
        Pillow.fromarray(picture).save(root / "images" / f"{i}.png")
        Pillow.fromarray(mask).save(root / "masks" / f"{i}.png")
    return SegmentationFolder(str(root / "images"), str(root / "masks"), CLASSES)


def segmenter(source, transforms: tuple, inference: Inference = WHOLE) -> Restored:
    net = Learner(module=Copy(), optimizer=Optimizer(learning_rate=Constant(value=0.1)))
    return opened(Segmentation(net=net, inference=inference), source, transforms)


def opened(objective, source, transforms: tuple, batch_size: int = 8) -> Restored:
    pipeline = Pipeline(source=source, transforms=transforms)
    experiment = Experiment(
        objective=objective, train=pipeline, test=pipeline, steps=1, batch_size=batch_size, test_batch_size=8
    )
    program = Program.of(experiment)
    return Restored(program, 1, program.init())


def predicted(run: Restored, paths, out: pathlib.Path, *, own_size: bool = False, top: int = 5) -> list[dict]:
    transforms = command.preparation(run, own_size=own_size)
    return list(command.predict(run, pictures(list(paths), out, print), out, transforms, top))


def ids(path) -> np.ndarray:
    with Pillow.open(path) as image:
        return np.asarray(image)


def iou(found: np.ndarray, true: np.ndarray) -> float:
    kept = found != IGNORE
    both = [((found == c) & (true == c) & kept).sum() / (((found == c) | (true == c)) & kept).sum() for c in range(3)]
    return float(np.mean(both))


# --- masks ------------------------------------------------------------------------------------------------------------

CHAINS = {
    "resize": (Resize(32, 48),),
    "short": (ResizeShort(40),),
    "crop": (CenterCrop(64, 64),),
    "pad": (PadTo(128, 160),),
    "multiple": (PadToMultiple(32),),
    "short, crop": (ResizeShort(60), CenterCrop(56, 56)),
    "crop, pad": (CenterCrop(64, 64), PadTo(96, 96)),
    "resize, multiple": (Resize(45, 70), PadToMultiple(32)),
    "mirror": (Flip(probability=1.0),),
    "turn": (PadTo(160, 160), Affine(degrees=8.0)),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
def test_a_predicted_mask_is_the_truth_wherever_the_transforms_show_the_picture(chain):
    picture, mask = scene(96, 120, 3)
    at = frame.prepared(picture, chain)
    image = jnp.asarray(at.image, jnp.float32)[None] / 127.5 - 1
    logits = np.asarray(Copy().apply({"params": {"bias": jnp.zeros((1, 1, 1, 3))}}, image, train=False))[0]
    found = np.full(mask.shape, IGNORE, np.uint8)
    for part in frame.returned_classes(logits, decided, at, *mask.shape):
        found[part.rows] = np.where(part.shown, part.values, IGNORE)
    assert iou(found, mask) > 0.9
    for part in frame.returned(logits, at, *mask.shape):  # the same as every pixel's own interpolated logits say
        np.testing.assert_array_equal(found[part.rows][part.shown], part.values.argmax(-1)[part.shown])
    # Mapped by the same transforms, it is the mask that evaluation counts.
    mapped = batches.transformed({"image": picture, "mask": found}, chain, np.random.default_rng(0))["mask"]
    counted = mapped != IGNORE
    assert (mapped[counted] == logits.argmax(-1)[counted]).mean() > 0.985
    assert counted.mean() >= at.shown.mean() - 0.02


@pytest.mark.parametrize("name", ["crop", "pad", "multiple", "crop, pad", "mirror"])
def test_without_resizing_the_predicted_mask_is_evaluations_pixel_by_pixel(name):
    picture, _ = scene(96, 120, 3)
    at = frame.prepared(picture, CHAINS[name])
    numbered = np.random.default_rng(0).normal(size=(*at.image.shape[:2], 5)).astype(np.float32)
    found = np.full(picture.shape[:2], IGNORE, np.uint8)
    for part in frame.returned_classes(numbered, decided, at, *found.shape):
        found[part.rows] = np.where(part.shown, part.values, IGNORE)
    mapped = batches.transformed({"image": picture, "mask": found}, CHAINS[name], np.random.default_rng(0))["mask"]
    np.testing.assert_array_equal(mapped, np.where(at.shown, numbered.argmax(-1), IGNORE))
    assert at.shown.sum() == (found != IGNORE).sum()


def test_masks_are_as_good_at_the_pictures_own_size_as_they_were_measured(tmp_path, capsys):
    source = scenes(tmp_path / "val", [(240, 320)] * 8)
    run = segmenter(source, (Resize(64, 64),))
    measured = evaluate(run.program, run.state)["miou"]
    rows = predicted(run, [tmp_path / "val" / "images"], tmp_path / "out")
    assert [row["image"] for row in rows] == [str(tmp_path / "val" / "images" / f"{i}.png") for i in range(8)]
    own = [iou(ids(row["mask"]), scene(240, 320, i)[1]) for i, row in enumerate(rows)]
    assert measured > 0.95
    assert min(own) > 0.95
    assert all("cut_away" not in row for row in rows)


WAYS = {
    "whole": Whole(multiple=16),
    "sliding": Sliding(height=24, width=24, stride=(16, 16)),
    "tta": Tta(scales=(1.0, 1.5)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_the_numbers_of_eval_follow_from_the_masks_of_predict(tmp_path, way):
    source = scenes(tmp_path / "val", [(48, 64)] * 3 + [(40, 56)] * 3)
    run = segmenter(source, (PadTo(48, 64),), way)
    measured = evaluate(run.program, run.state)
    rows = predicted(run, [tmp_path / "val" / "images"], tmp_path / "out")
    counts = np.zeros((3, 3), int)
    for i, row in enumerate(rows):
        np.add.at(counts, (ids(tmp_path / "val" / "masks" / f"{i}.png"), ids(row["mask"])), 1)
    assert np.diag(counts).sum() / counts.sum() == pytest.approx(measured["aacc"], abs=1e-6)
    ious = np.diag(counts) / (counts.sum(0) + counts.sum(1) - np.diag(counts))
    assert ious.mean() == pytest.approx(measured["miou"], abs=1e-6)


def test_what_the_transforms_cut_away_is_ignored_in_the_mask_and_said(tmp_path):
    source = scenes(tmp_path / "val", [(80, 100)])
    run = segmenter(source, (CenterCrop(64, 64),))
    (row,) = predicted(run, [tmp_path / "val" / "images" / "0.png"], tmp_path / "out")
    mask = ids(row["mask"])
    assert mask.shape == (80, 100)
    assert (mask[8:72, 18:82] != IGNORE).all()
    assert (mask != IGNORE).sum() == 64 * 64
    assert row["cut_away"] == pytest.approx(1 - 64 * 64 / 8000)
    assert sum(row["classes"].values()) == pytest.approx(1)
    (row,) = predicted(run, [tmp_path / "val" / "images" / "0.png"], tmp_path / "out", own_size=True)
    assert iou(ids(row["mask"]), scene(80, 100, 0)[1]) == 1


def test_without_test_transforms_a_segmenter_sees_a_picture_as_it_is(tmp_path):
    run = segmenter(scenes(tmp_path / "val", [(40, 56)]), ())
    for i, (h, w) in enumerate([(1, 1), (1, 500), (3, 2), (33, 77)]):
        Pillow.fromarray(scene(h, w, i)[0]).save(tmp_path / f"{i}.png")
    for i, row in enumerate(predicted(run, [tmp_path / f"{i}.png" for i in range(4)], tmp_path / "out")):
        np.testing.assert_array_equal(ids(row["mask"]), scene(*[(1, 1), (1, 500), (3, 2), (33, 77)][i], i)[1])


@dataclasses.dataclass(frozen=True)
class Halved:
    """A transform that knows nothing of frames."""

    def __call__(self, rng, example):
        return example | {"image": example["image"][::2, ::2], "mask": example["mask"][::2, ::2]}


@dataclasses.dataclass(frozen=True)
class ByLabel:
    def __call__(self, rng, example):
        return example | {"image": example["image"] + np.uint8(example["label"])}


def test_a_transform_that_loses_the_frame_is_named(tmp_path):
    source = scenes(tmp_path / "val", [(40, 56)])
    run = segmenter(source, (Halved(), Resize(16, 16)))
    with pytest.raises(UserError, match="Halved moves the image without its frame"):
        predicted(run, [tmp_path / "val" / "images"], tmp_path / "out")
    (row,) = predicted(segmenter(source, ()), [tmp_path / "val" / "images"], tmp_path / "out")
    assert "error" not in row
    with pytest.raises(UserError, match=r"ByLabel\(\) needs 'label', which a picture"):
        frame.prepared(scene(8, 8, 0)[0], (ByLabel(),))


def test_an_image_that_is_predicted_comes_back_to_its_own_size(tmp_path):
    picture, _ = scene(60, 90, 0)
    for chain, exact in (((PadTo(64, 96),), True), ((Resize(120, 180),), False)):
        at = frame.prepared(picture, chain)
        row = command._written(
            Image(pixels=at.image[None] / np.float32(127.5) - 1), (), picture, at, {"out": tmp_path / "x.png"}, 5
        )
        back = ids(row["out"]).astype(int)
        assert back.shape == picture.shape
        assert np.abs(back - picture).mean() <= (0 if exact else 5)
    at = frame.prepared(picture, (Resize(30, 45),))
    twice = np.zeros((1, 60, 90, 3), np.float32)  # of a net that doubles the size
    row = command._written(Image(pixels=twice), (), picture, at, {"out": tmp_path / "x.png"}, 5)
    assert ids(row["out"]).shape == (120, 180, 3)


# --- classes ----------------------------------------------------------------------------------------------------------


def classifier(root: pathlib.Path, transforms: tuple, channels: int = 3, batch_size: int = 8) -> Restored:
    net = Learner(module=Linear(classes=2), optimizer=Optimizer(learning_rate=Constant(value=0.1)))
    return opened(Classification(net=net), Folder(str(root), channels=channels), transforms, batch_size)


def album(root: pathlib.Path) -> list[pathlib.Path]:
    """Pictures of ten sizes and of many forms, in two classes."""
    sizes = [(48, 72), (72, 48), (50, 50), (64, 96), (100, 80), (60, 61), (33, 90), (120, 70), (200, 150), (20, 31)]
    for name in ("disc", "square"):
        (root / name).mkdir(parents=True)
    for i, (h, w) in enumerate(sizes):
        picture = Pillow.fromarray(scene(h, w, i)[0])
        folder = root / ("disc", "square")[i % 2]
        match i:
            case 0:
                exif = Pillow.Exif()
                exif[0x0112] = 6  # lies on its side
                picture.save(folder / "0.jpg", exif=exif)
            case 1:
                picture.convert("L").save(folder / "1.png")
            case 2:
                picture.putalpha(120)
                picture.save(folder / "2.png")
            case 3:
                grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
                Pillow.fromarray(grey).save(folder / "3.png")
            case 4:
                picture.quantize(16).save(folder / "4.png")
            case 5:
                picture.convert("CMYK").save(folder / "5.jpg")
            case _:
                picture.save(folder / f"{i}.jpg")
    return sorted(root.rglob("*.*"))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("chain", [(Resize(16, 16),), (ResizeShort(20), CenterCrop(16, 16))], ids=["resize", "crop"])
def test_probabilities_are_those_that_evaluation_counts(tmp_path, channels, chain):
    files = album(tmp_path / "album")
    run = classifier(tmp_path / "album", chain, channels)
    examples = run.experiment.test.source.open()
    rows = batches.rows_at(examples, chain, range(10))
    image = jnp.asarray(rows["image"], jnp.float32) / 127.5 - 1
    logits = run.program.objective.net.infer(run.state.nets["net"], image)
    expected = np.asarray(nn.softmax(logits))
    found = predicted(run, files, tmp_path / "out")
    assert [row["image"] for row in found] == [str(file) for file in files]
    for row, share in zip(found, expected, strict=True):
        named = {guess["class"]: guess["probability"] for guess in row["top5"]}
        assert [named["disc"], named["square"]] == pytest.approx(share.tolist(), abs=2e-6)
        assert sum(named.values()) == pytest.approx(1, abs=2e-6)
    right = [row["top5"][0]["class"] == pathlib.Path(row["image"]).parent.name for row in found]
    assert np.mean(right) == pytest.approx(evaluate(run.program, run.state)["accuracy"])


def test_without_test_transforms_a_classifier_sees_the_size_that_it_was_trained_at(tmp_path, capsys):
    for name in ("disc", "square"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Pillow.fromarray(scene(16, 20, 0)[0]).save(tmp_path / "data" / name / "0.png")
    run = classifier(tmp_path / "data", ())
    predicted(run, [tmp_path / "data"], tmp_path / "out")
    assert capsys.readouterr().err == ""
    for i, (h, w) in enumerate([(1, 1), (1, 5000), (37, 20)]):
        Pillow.fromarray(scene(h, w, i)[0]).save(tmp_path / f"{i}.png")
    rows = predicted(run, [tmp_path / f"{i}.png" for i in range(3)], tmp_path / "out", top=1)
    assert [len(row["top1"]) for row in rows] == [1, 1, 1]
    assert capsys.readouterr().err.count("pictures are brought to 16x20, as the net was trained") == 1
    with pytest.raises(UserError, match="drop --own-size"):
        predicted(run, [tmp_path / "0.png"], tmp_path / "out", own_size=True)


# --- what is named, and where the answers go --------------------------------------------------------------------------


def names(root: pathlib.Path, *paths: str, out: str = "out") -> dict[str, str]:
    asked = pictures([root / path for path in paths], root / out, print)
    return {picture.path.relative_to(root).as_posix(): picture.name for picture in asked}


@pytest.fixture
def tree(tmp_path):
    files = ["a/0.jpg", "a/1.png", "b/0.jpg", "b/.hidden.jpg", "b/.ipynb_checkpoints/0.jpg", "b/deep/2.webp", "x.jpg"]
    for file in [*files, "x.png", "notes.txt", "X.PNG"]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    return tmp_path


def test_no_two_pictures_share_a_name_and_folders_are_mirrored(tree):
    assert names(tree, "a/0.jpg", "a/1.png") == {"a/0.jpg": "0", "a/1.png": "1"}
    assert names(tree, "b") == {"b/0.jpg": "0", "b/deep/2.webp": "deep/2"}
    assert names(tree, "a", "b/deep") == {"a/0.jpg": "0", "a/1.png": "1", "b/deep/2.webp": "2"}
    assert names(tree, "a/0.jpg", "b/0.jpg") == {"a/0.jpg": "a/0", "b/0.jpg": "b/0"}
    assert names(tree, "a", "b") == {"a/0.jpg": "a/0", "a/1.png": "a/1", "b/0.jpg": "b/0", "b/deep/2.webp": "b/deep/2"}
    assert names(tree, "x.jpg", "x.png") == {"x.jpg": "x.jpg", "x.png": "x.png"}
    assert len(set(names(tree, "x.png", "X.PNG").values())) == 2
    assert "X.PNG.0" in names(tree, "X.PNG", "x.png").values()  # one name where case does not count


def test_a_picture_that_is_named_twice_is_predicted_once(tree):
    assert names(tree, "a/0.jpg", "a", "a/../a/0.jpg") == {"a/0.jpg": "0", "a/1.png": "1"}


def test_results_in_a_folder_that_is_asked_for_are_no_pictures(tree, capsys):
    assert len(names(tree, ".", out="b")) == 5
    assert "2 picture(s) in" in capsys.readouterr().out
    assert names(tree, "b", out="b") == {"b/0.jpg": "0", "b/deep/2.webp": "deep/2"}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing.png", "there is no image .*nothing.png$"),
        ("https://example.org/x.jpg", "addresses are not read; download the picture"),
        ("empty", "empty holds no pictures$"),
        ("phone", r"phone holds no pictures \(2 \.heic\)"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tmp_path, path, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "phone").mkdir()
    for i in range(2):
        (tmp_path / "phone" / f"{i}.heic").write_bytes(b"")
    with pytest.raises(UserError, match=said):
        pictures([pathlib.Path(path) if ":" in path else tmp_path / path], tmp_path / "out", print)


def test_a_program_predicts_from_bytes_what_it_predicts_from_floats(tmp_path):
    run = segmenter(scenes(tmp_path, [(16, 16)] * 2), ())
    pixels = np.stack([scene(16, 16, i)[0] for i in range(2)])
    floats = pixels.astype(np.float32) / np.float32(127.5) - 1
    expected = run.program.predict(run.state, floats)
    np.testing.assert_allclose(run.program.predict(run.state, pixels).logits, expected.logits, atol=1e-5)
    for image, said in (
        (pixels.astype(np.float32), r"images of float32 from 0 to 235: give bytes \(u8\), or floats in \[-1, 1\]"),
        (pixels.astype(np.int64), "images of int64 from 0 to 235"),
        (pixels[0], r"arrays \[b h w 3\], not \[16, 16, 3\]"),
        (pixels[..., :1], r"arrays \[b h w 3\], not \[2, 16, 16, 1\]"),
    ):
        with pytest.raises(UserError, match=said):
            run.program.predict(run.state, image)


def test_a_folder_for_results_is_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(UserError, match="file is no folder"):
            output.check_folder_for(out)
    output.check_folder_for(tmp_path / "new" / "deeper")
    assert not (tmp_path / "new").exists()


def test_a_picture_is_never_written_over(tmp_path):
    run = segmenter(scenes(tmp_path / "val", [(40, 56)]), ())
    folder = tmp_path / "val" / "images"
    (first,) = predicted(run, [folder / "0.png"], folder)
    before = (folder / "0_mask.png").read_bytes()
    with pytest.raises(UserError, match=r"over the picture .*0_mask\.png"):
        predicted(run, [folder / "0.png", folder / "0_mask.png"], folder)
    assert (folder / "0_mask.png").read_bytes() == before
    assert first["mask"] == str(folder / "0_mask.png")


def test_one_unreadable_picture_does_not_stop_the_others(tmp_path):
    run = segmenter(scenes(tmp_path / "val", [(40, 56)] * 3), (PadTo(40, 56),))
    folder = tmp_path / "val" / "images"
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:200])
    Pillow.fromarray(scene(50, 60, 0)[0]).save(folder / "3.png")
    rows = predicted(run, [folder], tmp_path / "out")
    assert ["error" in row for row in rows] == [False, True, False, True]
    assert "1.png" in rows[1]["error"]
    assert re.search(r"3\.png: PadTo.*: an image is 50x60; .*; --own-size leaves", rows[3]["error"])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"{i}_{name}.png" for i in (0, 2) for name in ("legend", "mask", "overlay")
    ]


def test_a_picture_that_does_not_fit_into_memory_is_named(tmp_path, monkeypatch):
    run = segmenter(scenes(tmp_path / "val", [(40, 56)]), ())
    monkeypatch.setattr(command, "LARGE", 1000)
    monkeypatch.setattr(command, "free_on_host", lambda: 1000)
    (row,) = predicted(run, [tmp_path / "val" / "images"], tmp_path / "out")
    assert re.search("a picture of 40x56 is too large .* GB are free", row["error"])
    monkeypatch.setattr(command, "free_on_host", lambda: None)
    monkeypatch.setattr("jaxgen.program.LARGE", 1000)
    monkeypatch.setattr("jaxgen.program.memory.free", lambda device: 1000)
    (row,) = predicted(run, [tmp_path / "val" / "images"], tmp_path / "out")
    assert re.search("an image of 40x56 takes the net .* GB at once", row["error"])


def test_the_mask_of_many_classes_has_a_colour_for_each_and_white_for_what_is_ignored(tmp_path):
    picture = scene(8, 32, 0)[0]
    at = frame.prepared(picture, (CenterCrop(8, 30),))
    logits = np.zeros((1, 8, 30, 255), np.float32)
    logits[..., 254] = 1
    files = {name: tmp_path / f"{name}.png" for name in ("mask", "overlay", "legend")}
    row = command._masked(logits[0], tuple(map(str, range(255))), picture, at, files)
    assert row["classes"] == {"254": 1.0}
    with Pillow.open(files["mask"]) as mask:
        assert set(np.unique(np.asarray(mask))) == {254, IGNORE}
        assert mask.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


# --- the command line -------------------------------------------------------------------------------------------------

CONFIG = """
from jaxgen.data.augment import Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Folder
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.metrics.accumulators import predicted as decided
from jaxgen.models.cnn import Cnn
from jaxgen.objectives.classification import Classification
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant

def config():
    net = Learner(
        module=Cnn(classes=2, widths=(4,), depths=(1,), hidden=(), dropout=0.0),
        optimizer=Optimizer(learning_rate=Constant(value=1e-2)),
    )
    data = Pipeline(source=Folder({path!r}), transforms=(Resize(16, 16),))
    return Experiment(
        objective=Classification(net=net), train=data, test=data, steps=2, batch_size=8, checkpoint_every=2,
    )
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    album(root / "album")
    (root / "config.py").write_text(CONFIG.replace("{path!r}", repr(str(root / "album"))))
    os.chdir(ROOT)
    assert cli.train([str(root / "config.py"), "--run-dir", str(root / "run")]) == 0
    return root


def said(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main([str(each) for each in arguments])
    return status, *capsys.readouterr()


def test_predict_takes_folders_and_lists_what_it_could_not_read(trained, tmp_path, capsys, monkeypatch):
    Pillow.fromarray(scene(20, 30, 0)[0]).save(tmp_path / "-x.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    run, out = trained / "run", tmp_path / "out"
    status, text, error = said(capsys, "predict", run, "-x.png", "broken.png", trained / "album", "--out", out)
    assert status == 0
    assert len(text.splitlines()) == 11
    assert re.match(r"-x\.png  (disc|square) 0\.\d{3}  (disc|square) 0\.\d{3}\n", text)
    assert "1 of 12 pictures could not be predicted:\n  broken.png: unreadable" in error
    status, text, _ = said(capsys, "predict", run, "-x.png", "broken.png", "--out", out, "--json", "--top", "1")
    found = json.loads(text)
    assert (len(found["images"]), len(found["images"][0]["top1"])) == (1, 1)
    assert [row["image"] for row in found["failed"]] == ["broken.png"]
    status, text, error = said(capsys, "predict", run, "broken.png", "--out", out)
    assert (status, text) == (2, "")
    assert re.fullmatch(r"error: no picture could be predicted: broken\.png: unreadable .*\n", error)
    assert not out.exists()


def test_eval_on_other_data_of_the_same_layout(trained, tmp_path, capsys):
    run = trained / "run"
    _, text, _ = said(capsys, "eval", run, "--json")
    own = json.loads(text)
    assert "data" not in own
    status, text, _ = said(capsys, "eval", run, "--json", "--data", trained / "album")
    assert (status, json.loads(text)) == (0, own | {"data": str(trained / "album")})
    other = tmp_path / "other"
    for name, label in (("disc", 0), ("square", 1)):
        (other / name).mkdir(parents=True)
        Pillow.fromarray(scene(30, 30, label)[0]).save(other / name / "0.png")
    before = (run / "eval.json").read_text()
    _, text, _ = said(capsys, "eval", run, "--json", "--data", other)
    by_field = said(capsys, "eval", run, "--json", "--test.source.path", other, "--test-batch-size", "1")[1]
    assert json.loads(text)["metrics"] == pytest.approx(json.loads(by_field)["metrics"], abs=1e-6)
    assert json.loads(text)["metrics"]["loss"] != own["metrics"]["loss"]
    assert (run / "eval.json").read_text() == before
    rows = json.loads(said(capsys, "predict", run, other, "--out", tmp_path / "out", "--json")[1])["images"]
    shares = [
        {g["class"]: g["probability"] for g in row["top5"]}[name]
        for row, name in zip(rows, ("disc", "square"), strict=True)
    ]
    assert json.loads(text)["metrics"]["loss"] == pytest.approx(-np.log(shares).mean(), abs=1e-4)


def test_eval_on_data_that_do_not_fit_is_refused_in_a_line_or_two(trained, tmp_path, capsys):
    run, other = trained / "run", tmp_path / "other"
    for arguments, expected in (
        (("--data", tmp_path / "nowhere"), "there is no folder .*nowhere"),
        (("--data", tmp_path), "image"),
        (("--sample", "3"), "unrecognized arguments: --sample 3"),
        (("--test.source.pth", "x"), r"--test\.source\.path"),
        (("--steps", "3"), "unrecognized arguments: --steps 3"),
    ):
        status, _, error = said(capsys, "eval", run, *arguments)
        assert status == 2
        assert re.search(expected, error)
        assert len(error.splitlines()) <= 2
    for name in ("disc", "ring"):
        (other / name).mkdir(parents=True)
        Pillow.fromarray(scene(30, 30, 0)[0]).save(other / name / "0.png")
    status, _, error = said(capsys, "eval", run, "--data", other)
    assert status == 2
    assert "'square'" in error
    assert "'ring'" in error


def test_other_data_of_a_segmenter_lie_as_its_own_do(tmp_path):
    from jaxgen.commands.evaluate import in_folder

    source = SegmentationFolder("data/val/images", "data/val/masks", CLASSES, ids="val.txt", split="test")
    (tmp_path / "x").mkdir()
    changed = in_folder(source, tmp_path / "x")
    assert (changed.images, changed.masks) == (str(tmp_path / "x" / "images"), str(tmp_path / "x" / "masks"))
    assert (changed.ids, changed.split, changed.classes) == (None, None, CLASSES)
    wide = in_folder(dataclasses.replace(source, images="data/images/val", masks="data/masks/val"), tmp_path / "x")
    assert wide.masks == str(tmp_path / "x" / "masks" / "val")
    with pytest.raises(UserError, match=r"ByLabel reads no folder"):
        in_folder(ByLabel(), tmp_path / "x")
