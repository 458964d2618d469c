"""Crops of one class: what stands in the middle is what the label says, and the draw is a function of the generator."""

import numpy as np
import pytest

from jaxgen.data import batches
from jaxgen.data.crops import BoxCrop
from jaxgen.errors import UserError
from jaxgen.typing import Example

HEIGHT, WIDTH = 50, 70
BOXES = ((8, 6, 20, 22), (40, 25, 52, 41))  # x0 y0 x1 y1
SIDE = 15


def boxed() -> Example:
    """Two boxes on black, each filled with its class."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for label, (x0, y0, x1, y1) in enumerate(BOXES, start=1):
        image[y0:y1, x0:x1] = 100 * label
    return {"image": image, "boxes": np.array(BOXES, np.float32), "labels": np.array([1, 2], np.int32)}


def crops(crop: BoxCrop, count: int, example: Example | None = None) -> list[Example]:
    return [crop(np.random.default_rng(i), example or boxed()) for i in range(count)]


def test_the_middle_shows_the_label_and_every_class_is_drawn_alike() -> None:
    found = crops(BoxCrop(SIDE), 600)
    for one in found:
        assert one.keys() == {"image", "label"}
        assert (one["image"].shape, one["image"].dtype) == ((SIDE, SIDE, 3), np.uint8)
        assert one["image"][SIDE // 2, SIDE // 2, 0] == 100 * one["label"]
    counts = np.bincount([int(one["label"]) for one in found])
    assert np.all(np.abs(counts - 200) < 5 * np.sqrt(600 * 2 / 9))  # five standard deviations of a binomial


def test_without_jitter_a_crop_is_the_pixels_around_the_boxs_middle() -> None:
    for one in crops(BoxCrop(12, jitter=0.0), 30):
        if one["label"]:
            x0, y0, _, _ = BOXES[one["label"] - 1]
            assert np.array_equal(one["image"], boxed()["image"][y0 + 2 : y0 + 14, x0 : x0 + 12])


@pytest.mark.parametrize("free", [0, 6, 14])
def test_no_box_reaches_into_the_middle_of_background(free: int) -> None:
    background = [one["image"] for one in crops(BoxCrop(21, free=free), 200) if one["label"] == 0]
    inset = (21 - free) // 2
    middles = np.array([image[inset : 21 - inset, inset : 21 - inset, 0] for image in background])
    assert len(background) > 20
    assert not np.isin(middles, (100, 200)).any()


def test_where_there_is_no_room_a_box_is_drawn() -> None:
    assert all(one["label"] > 0 for one in crops(BoxCrop(SIDE, free=200), 20))


def test_the_crop_is_a_function_of_the_generator_and_writes_to_nothing() -> None:
    example = boxed()
    for array in example.values():
        array.flags.writeable = False
    first, second = (BoxCrop(SIDE)(np.random.default_rng(3), example) for _ in range(2))
    assert np.array_equal(first["image"], second["image"])
    assert first["label"] == second["label"]


def test_crops_make_batches_to_classify() -> None:
    class Two:
        classes = ("background", "one", "two")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Example:
            return boxed()

    batch = batches.rows_at(Two(), (BoxCrop(SIDE),), [0, 1, 0])
    assert {name: array.shape for name, array in batch.items()} == {"image": (3, SIDE, SIDE, 3), "label": (3,)}


def test_what_has_no_boxes_and_a_size_that_is_none_are_refused() -> None:
    with pytest.raises(UserError, match="no boxes and no labels"):
        BoxCrop(SIDE)(np.random.default_rng(0), {"image": boxed()["image"]})
    with pytest.raises(UserError, match="side is 0"):
        BoxCrop(0)
