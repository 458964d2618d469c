"""`jaxgen data`: what is counted, which weights follow, and what is warned of."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image
from test_data_folder import ids, picture

from jaxgen.commands import data
from jaxgen.data.folder import Folder, Images, SegmentationFolder
from jaxgen.data.survey import survey, twice
from jaxgen.errors import UserError

CONFIG = """
import dataclasses
import small
from jaxgen.data.augment import Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.folder import Folder, SegmentationFolder

def config():
    folders = {{split: {source} for split in ("train", "test")}}
    pipelines = {{k: Pipeline(source=v, transforms=({transforms})) for k, v in folders.items()}}
    return dataclasses.replace(small.{experiment}(), **pipelines)
"""


@pytest.fixture
def masks(tmp_path: pathlib.Path) -> pathlib.Path:
    """Two images of 4 pixels: three 0 and one 1; two 1 and two that do not count. Class 2 is nowhere."""
    for split in ("train", "test"):
        for name, values in (("a", (0, 0, 0, 1)), ("b", (1, 1, 255, 255))):
            picture(tmp_path / split / "i" / f"{split}{name}{'x' * len(split)}.png", 2, 2)
            ids(tmp_path / split / "m" / f"{split}{name}{'x' * len(split)}.png", *values, height=2, width=2)
    return tmp_path


def test_pixels_and_their_weights(masks):
    found = survey(SegmentationFolder(f"{masks}/train/i", f"{masks}/train/m", ("x", "y", "z")).open(), 100)
    assert (found.unit, found.examples, found.ignored) == ("pixels", 2, 2)
    assert found.counts.tolist() == [3, 3, 0]
    assert found.images.tolist() == [1, 2, 0]
    assert found.around.tolist() == [4, 6, 0]
    assert np.allclose(found.shares, [0.5, 0.5, 0])
    # Over what counts, the mean weight is 1; a class that is nowhere has none.
    assert found.inverse_frequency() == [1.0, 1.0, 0.0]
    # Frequencies 3/4 and 3/6 in the images that have the class; their median is 5/8.
    assert found.median_frequency() == [0.833, 1.25, 0.0]


def test_labels_and_their_weights(tmp_path):
    for name in ("a/1", "a/2", "a/3", "b/4"):
        picture(tmp_path / f"{name}.png", 4 + len(list(tmp_path.rglob("*.png"))))
    found = survey(Folder(str(tmp_path)).open(), 100)
    assert (found.unit, found.counts.tolist(), found.images.tolist()) == ("examples", [3, 1], [3, 1])
    assert found.inverse_frequency() == [0.667, 2.0]
    assert found.sizes == {(4, 9, 3): 1, (5, 9, 3): 1, (6, 9, 3): 1, (7, 9, 3): 1}


def test_images_alone_have_no_classes_and_few_may_stand_for_all(tmp_path):
    for i in range(10):
        picture(tmp_path / f"{i}.png", 3 + i)
    found = survey(Images(str(tmp_path)).open(), 4)
    assert (found.unit, found.examples, len(found.sizes)) == ("", 4, 4)


def test_the_same_pixels_in_both_sets_are_found_whatever_the_file(tmp_path):
    same = picture(tmp_path / "train" / "1.png")
    picture(tmp_path / "train" / "22.png")
    (tmp_path / "test").mkdir()
    Image.fromarray(same).save(tmp_path / "test" / "other.bmp")
    picture(tmp_path / "test" / "4444.png")
    train, test = (Images(f"{tmp_path}/{side}").open() for side in ("train", "test"))
    assert twice(survey(train, 9), survey(test, 9), train, test) == [
        (f"{tmp_path}/test/other.bmp", f"{tmp_path}/train/1.png")
    ]


def test_an_example_that_cannot_be_read_is_named_and_the_others_are_counted(tmp_path):
    for i in range(200):
        picture(tmp_path / f"{i:03d}.png", 2, 2)
    (tmp_path / "001.png").write_bytes(b"")
    found = survey(Images(str(tmp_path)).open(), 200)  # opening looks at some of them only
    assert found.examples == 199
    assert found.faults == (f"{tmp_path}/001.png: unreadable image (the file is empty)",)


@pytest.fixture
def segmentation(masks):
    source = f"SegmentationFolder(f'{masks}/{{split}}/i', f'{masks}/{{split}}/m', ('x', 'y', 'z'))"
    path = masks / "mine.py"
    path.write_text(CONFIG.format(source=source, transforms="Resize(32, 32),", experiment="segmentation"))
    return path


def test_the_command_prints_what_it_found_and_draws_a_sheet(segmentation, capsys):
    data.run("jaxgen data", [str(segmentation), "--out", str(segmentation.with_suffix(".png"))])
    out, err = capsys.readouterr()
    first, *lines = out.splitlines()
    assert first.startswith("data: 2 training and 2 test examples of 3 classes (x, y, z), 32x32x3, from ")
    assert lines[0] == "training images: 2 looked at, 2x2x3"
    assert lines[2] == "pixels that do not count (255): 25.0% of the training masks'"
    assert lines[4].split() == ["x", "3", "50.00%", "1", "50.00%"]
    assert lines[-2] == "weights by inverse frequency: --objective.loss.class-weights 1 1 0"
    assert lines[-1] == "weights by median frequency: --objective.loss.class-weights 0.833 1.25 0"
    assert "warning: no training pixels of 1 of 3 classes: z" in err
    assert "warning: no test pixels of 1 of 3 classes: z" in err
    drawn = np.asarray(Image.open(segmentation.with_suffix(".png")))
    assert drawn.shape[0] > 2 * 96
    assert drawn.std() > 10


def test_the_weights_are_taken_as_they_are_printed(segmentation, capsys):
    data.run("jaxgen data", [str(segmentation), "--objective.loss.class-weights", "0.833", "1.25", "0"])
    assert "--objective.loss.class-weights 0.833 1.25 0" in capsys.readouterr().out


def test_json_has_all_of_it(segmentation, capsys):
    data.run("jaxgen data", [str(segmentation), "--json"])
    out, _ = capsys.readouterr()
    found = json.loads(out)
    assert found["classes"] == ["x", "y", "z"]
    assert found["train"]["counts"] == [3, 3, 0]
    assert found["train"]["sizes"] == [{"shape": [2, 2, 3], "images": 2}]
    assert found["weights"]["median_frequency"] == [0.833, 1.25, 0.0]
    assert found["in_both"] == []
    assert any("no training pixels" in line for line in found["notes"])


def test_sizes_that_do_not_stack_are_explained_and_no_sheet_is_promised(tmp_path, capsys):
    for i, name in enumerate(("a/1", "a/2", "b/3", "b/4")):
        picture(tmp_path / "d" / f"{name}.png", 4 + i)
    path = tmp_path / "mine.py"
    path.write_text(CONFIG.format(source=f"Folder('{tmp_path}/d')", transforms="", experiment="linear"))
    data.run("jaxgen data", [str(path)])
    out, err = capsys.readouterr()
    assert "training images: 4 looked at, 4x9x3 to 7x9x3, 4 sizes" in out
    assert "--objective.class-weights 1 1" in out
    assert "warning: image: the sizes in a batch differ" in err
    assert "warning: 4 test images are training images too, pixel by pixel" in err
    assert "note: 4 of 4 test examples are training examples too" in err
    with pytest.raises(UserError, match="sizes in a batch differ"):
        data.run("jaxgen data", [str(path), "--out", str(tmp_path / "sheet.png")])
    with pytest.raises(UserError, match=r"sheet\.xyz"):
        data.run("jaxgen data", [str(path), "--out", str(tmp_path / "sheet.xyz")])
    with pytest.raises(UserError, match="--most 0: it must be at least 1"):
        data.run("jaxgen data", [str(path), "--most", "0"])
