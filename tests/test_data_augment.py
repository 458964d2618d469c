"""Laws of every augmentation: pure, of the promised size, and image, mask and boxes stay on each other."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from jaxgen.data import augment, batches, geometry
from jaxgen.data.augment import (
    Affine,
    CenterCrop,
    Cutout,
    Flip,
    PadCrop,
    PadTo,
    PadToMultiple,
    Photometric,
    RandomResizedCrop,
    RandomScaleCrop,
    Resize,
    ResizeShort,
    Rotate,
    Transform,
)
from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example

# The colour of every id: an image painted with it must agree with its mask wherever both may be compared.
PAINT = np.stack([(np.arange(256) * step + 40) % 256 for step in (23, 101, 59)], axis=1).astype(np.uint8)
HEIGHT, WIDTH = 60, 76

EXACT = [  # no pixel is interpolated
    CenterCrop(40, 50),
    CenterCrop(70, 90),
    CenterCrop(40, 90),
    PadTo(64, 80),
    PadToMultiple(32),
    PadCrop(HEIGHT, WIDTH, pad=8),
    PadCrop(48, 90, pad=2),
    Flip(1.0),
    Resize(HEIGHT, WIDTH),
    RandomScaleCrop(48, 48, low=1.0, high=1.0),
]
RESAMPLED = [
    Resize(90, 70),
    Resize(37, 53),
    ResizeShort(45),
    RandomResizedCrop(48, 56),
    RandomResizedCrop(48, 56, scale=(0.9, 1.0), ratio=(4.0, 5.0)),  # seldom fits: the middle crop
    RandomScaleCrop(64, 64),
    RandomScaleCrop(96, 120, low=0.5, high=0.8),
    RandomScaleCrop(32, 32, low=1.5, high=2.0, max_share=0.75),
]
WARPED = [Rotate(15.0), Affine(), Affine(degrees=0.0, scale=(0.7, 0.7), shear=0.0, shift=0.2)]
PAINTED = [Photometric(), Photometric(0.5, 0.5, 0.5, 0.5), Cutout(16)]
ALL = EXACT + RESAMPLED + WARPED + PAINTED


def painted(seed: int = 0, height: int = HEIGHT, width: int = WIDTH, rows: int = 2, columns: int = 3) -> Example:
    """A rectangle of id 1, 2, … in each cell of a grid, an image in their colours, and their boxes."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    boxes = []
    for k in range(rows * columns):
        h, w = height // rows, width // columns
        y0, x0 = k // columns * h + rng.integers(0, h // 3), k % columns * w + rng.integers(0, w // 3)
        y1, x1 = y0 + rng.integers(h // 3, h // 2 + 1), x0 + rng.integers(w // 3, w // 2 + 1)
        mask[y0:y1, x0:x1] = k + 1
        boxes.append((x0, y0, x1, y1))
    return frozen({
        "image": PAINT[mask],
        "mask": mask,
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.arange(1, rows * columns + 1, dtype=np.int32),
        "caption": np.array("rectangles"),
    })  # fmt: skip


def frozen(example: Example) -> Example:
    for array in example.values():
        array.flags.writeable = False
    return example


def extent(mask: np.ndarray, k: int) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero((mask == k).any(1)), np.flatnonzero((mask == k).any(0))
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def run(transform: Transform, example: Example, seed: int = 0) -> Example:
    return transform(np.random.default_rng(seed), example)


def same(a: Example, b: Example) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_a_transform_is_a_function_that_writes_to_nothing(transform: Transform) -> None:
    assert isinstance(transform, Transform)
    assert hash(transform) == hash(dataclasses.replace(transform))
    for seed in range(5):
        example = painted(seed)  # its arrays raise when they are written to
        out = run(transform, example, seed)
        assert same(example, painted(seed))
        assert same(out, run(transform, painted(seed), seed))
        assert out["image"].dtype == out["mask"].dtype == np.uint8
        assert out["boxes"].dtype == np.float32
        assert out["image"].shape == (*out["mask"].shape, 3)
        assert len(out["boxes"]) == len(out["labels"])


@pytest.mark.parametrize("transform", [t for t in ALL if t not in PAINTED], ids=str)
def test_a_target_moves_with_its_image(transform: Transform) -> None:
    for seed in range(5):
        example = painted(seed)
        alike = run(transform, example | {"target": example["image"]}, seed)
        alone = run(transform, example, seed)
        assert np.array_equal(alike["target"], alone["image"])
        # Of another depth, and in its own colours where the image is padded.
        grey = run(transform, example | {"target": example["image"][:, :, :1]}, seed)
        assert np.array_equal(grey["target"], alone["image"][:, :, :1])
        assert same({key: grey[key] for key in alone}, alone)


@pytest.mark.parametrize("transform", [t for t in ALL if t not in PAINTED], ids=str)
def test_pixels_that_nobody_knows_how_to_move_are_refused(transform: Transform) -> None:
    example = painted()
    for extra in (np.zeros((HEIGHT, WIDTH), np.float32), np.zeros((HEIGHT, WIDTH, 2), np.uint8)):
        with pytest.raises(UserError, match=r"depth: .*60x76 pixels; they move image, target and mask"):
            run(transform, example | {"depth": extra})
    with pytest.raises(UserError, match="target is 30x38, but image is 60x76"):
        run(transform, example | {"target": np.zeros((30, 38, 3), np.uint8)})
    points = np.zeros((5, 2), np.float32)  # no pixels: passes as it is
    assert run(transform, example | {"points": points})["points"] is points


@pytest.mark.parametrize("transform", [t for t in ALL if hasattr(t, "height")], ids=str)
def test_the_size_is_what_was_asked_for(transform: Transform) -> None:
    for seed, (h, w) in enumerate([(HEIGHT, WIDTH), (61, 33), (20, 79), (13, 12)]):
        out = run(transform, painted(seed, min(h, transform.height), min(w, transform.width), rows=0, columns=1), seed)
        assert out["mask"].shape == (transform.height, transform.width)


@pytest.mark.parametrize("transform", EXACT, ids=str)
def test_whole_pixels_move_together(transform: Transform) -> None:
    for seed in range(8):
        out = run(transform, painted(seed), seed)
        valid = out["mask"] != IGNORE
        assert valid.mean() > 0.4
        assert np.array_equal(out["image"][valid], PAINT[out["mask"]][valid])


@pytest.mark.parametrize("transform", RESAMPLED + WARPED + [Cutout(16)], ids=str)
def test_interpolated_pixels_move_together(transform: Transform) -> None:
    compared = 0
    for seed in range(8):
        out = run(transform, painted(seed), seed)
        mask = out["mask"].astype(int)
        around = {"size": 5, "mode": "constant", "cval": -1}
        inside = ndimage.maximum_filter(mask, **around) == ndimage.minimum_filter(mask, **around)
        inside &= mask != IGNORE
        compared += inside.sum()
        assert np.abs(out["image"][inside].astype(int) - PAINT[mask[inside]]).max(initial=0) <= 1
    assert compared > 1000


@pytest.mark.parametrize("transform", EXACT + RESAMPLED, ids=str)
def test_boxes_stay_tight(transform: Transform) -> None:
    seen = 0
    for seed in range(12):
        out = run(transform, painted(seed), seed)
        for box, label in zip(out["boxes"], out["labels"], strict=True):
            if (box[2:] - box[:2]).min() < 3:  # a sliver may lie between the pixels that a mask keeps
                continue
            assert np.abs(box - extent(out["mask"], label)).max() <= (0 if transform in EXACT else 1)
            seen += 1
        for label in np.setdiff1d(out["mask"], [0, IGNORE]):
            x0, y0, x1, y1 = extent(out["mask"], label)
            assert label in out["labels"] or min(x1 - x0, y1 - y0) <= 1
    assert seen >= 12


@pytest.mark.parametrize("transform", WARPED, ids=str)
def test_a_turned_box_holds_what_it_held(transform: Transform) -> None:
    for seed in range(12):
        out = run(transform, painted(seed), seed)
        assert len(out["boxes"])
        for box, label in zip(out["boxes"], out["labels"], strict=True):
            if (out["mask"] == label).any():
                x0, y0, x1, y1 = extent(out["mask"], label)
                assert (box[:2] <= np.add([x0, y0], 1)).all()
                assert (box[2:] >= np.subtract([x1, y1], 1)).all()
        assert (out["boxes"] >= 0).all()
        assert (out["boxes"] <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


def test_what_leaves_the_picture_loses_its_box_and_label() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:6, 2:6], mask[8:12, 8:12] = 1, 2
    boxes = np.array([[2, 2, 6, 6], [8, 8, 12, 12]], np.float32)
    example = {"image": PAINT[mask], "mask": mask, "boxes": boxes, "labels": np.array([1, 2], np.int32)}
    out = run(CenterCrop(6, 6), example)
    assert out["labels"].tolist() == [2]
    assert out["boxes"].tolist() == [[1, 1, 5, 5]]


@pytest.mark.parametrize(
    "transform", [CenterCrop(70, 90), PadTo(64, 80), PadToMultiple(32), RandomScaleCrop(96, 120, 0.5, 0.8)], ids=str
)
def test_padding_is_the_mean_colour_and_255(transform: Transform) -> None:
    example = painted(3, 50, 60)  # small enough for the mean to go over every pixel
    out = run(transform, example)
    outside = out["mask"] == IGNORE
    assert outside.any()
    assert (out["image"][outside] == out["image"][outside][0]).all()
    mean = example["image"].mean((0, 1))
    assert np.abs(out["image"][outside][0] - mean).max() <= (0.5 if not isinstance(transform, RandomScaleCrop) else 3)


@pytest.mark.parametrize("transform", [PadCrop(8, 8, 3, fill=0), Rotate(45.0, fill=0), Affine(fill=0)], ids=str)
def test_padding_can_be_a_grey_level(transform: Transform) -> None:
    example = {"image": np.full((8, 8, 1), 200, np.uint8), "mask": np.ones((8, 8), np.uint8)}
    outs = [run(transform, example, seed) for seed in range(10)]
    outside = np.concatenate([out["image"][out["mask"] == IGNORE] for out in outs])
    assert outside.size
    assert set(np.concatenate([out["image"].ravel() for out in outs])) <= {0, *range(1, 201)}
    assert (outside < 200).all()
    assert (outside == 0).mean() > 0.5


def test_the_mean_colour_of_a_large_picture_is_close() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)
    assert np.abs(geometry.mean_colour(image) - image.mean((0, 1))).max() < 8
    small = image[:64, :64]
    assert np.array_equal(geometry.mean_colour(small), np.round(small.mean((0, 1))))


def test_padding_to_less_than_the_picture_is_an_error() -> None:
    with pytest.raises(UserError, match="60x76"):
        run(PadTo(59, 100), painted())


def test_flip_flips_all_or_nothing() -> None:
    example = painted()
    mirrored = run(Flip(1.0), example)
    kinds = [same(out, mirrored) for out in (run(Flip(), example, seed) for seed in range(40))]
    plain = [same(out, example) for out in (run(Flip(), example, seed) for seed in range(40))]
    assert all(a != b for a, b in zip(kinds, plain, strict=True))
    assert 10 < sum(kinds) < 30
    assert np.array_equal(mirrored["image"], example["image"][:, ::-1])
    twice = run(Flip(1.0), mirrored)
    assert all(np.array_equal(twice[key], example[key]) for key in ("image", "mask", "boxes", "labels"))


def test_a_crop_of_one_class_is_drawn_ten_times_and_then_taken() -> None:
    for ids in (0, IGNORE):
        mask = np.full((32, 32), ids, np.uint8)
        out = run(RandomScaleCrop(16, 16, max_share=0.75), {"image": PAINT[mask], "mask": mask})
        assert out["mask"].shape == (16, 16)


def test_max_share_avoids_crops_of_one_class_and_does_not_count_ignored_pixels() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 40:] = 1
    mask[:8] = IGNORE
    example = {"image": PAINT[mask], "mask": mask}
    shares = {limit: [] for limit in (0.75, 1.0)}
    for limit, found in shares.items():
        for seed in range(60):
            crop = run(RandomScaleCrop(24, 24, 1.0, 1.0, max_share=limit), example, seed)["mask"]
            found.append(max((crop == 0).sum(), (crop == 1).sum()) / (crop != IGNORE).sum())
    assert np.mean(np.array(shares[0.75]) < 0.75) > 0.95
    assert np.mean(np.array(shares[1.0]) < 0.75) < 0.6


def test_random_resized_crop_keeps_area_and_proportions() -> None:
    y, x = np.mgrid[:100, :100]
    example = {"image": np.stack([y, x, x * 0], 2).astype(np.uint8)}  # a picture that knows where its pixels were
    for seed in range(30):
        image = run(RandomResizedCrop(50, 50, (0.2, 0.5), (0.5, 2.0)), example, seed)["image"].astype(float)
        height, width = (np.ptp(image[..., axis]) * 50 / 49 for axis in (0, 1))
        assert 0.15 < height * width / 1e4 < 0.55
        assert 0.45 < width / height < 2.2


def test_photometric_keeps_shapes_greys_and_means() -> None:
    example = painted()
    out = run(Photometric(), example)
    assert same({k: out[k] for k in ("mask", "boxes")}, {k: example[k] for k in ("mask", "boxes")})
    assert not np.array_equal(out["image"], example["image"])
    nothing = run(Photometric(0.0, 0.0, 0.0, 0.0), example)
    assert np.abs(nothing["image"].astype(int) - example["image"]).max() <= 1
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8, 1), 3, axis=2)
    turned = run(Photometric(0.0, 0.0, 0.9, 0.5), {"image": grey})["image"]  # greys have no hue to turn
    assert np.abs(turned.astype(int) - grey).max() <= 1
    for seed in range(10):  # contrast stretches about the mean, brightness multiplies it
        image = run(Photometric(0.0, 0.3, 0.0, 0.0), {"image": np.clip(grey, 70, 180)}, seed)["image"]
        assert abs(image.mean() - np.clip(grey, 70, 180).mean()) < 1
    assert run(Photometric(), {"image": np.full((4, 4, 1), 100, np.uint8)})["image"].shape == (4, 4, 1)


def test_hue_turns_all_the_way_round() -> None:
    turn = augment.chroma(1.0, 1 / 3)
    assert np.allclose(np.linalg.matrix_power(turn, 3), np.eye(3), atol=1e-9)
    assert not np.allclose(turn, np.eye(3), atol=0.1)


def test_cutout_hides_a_square_and_does_not_ask_for_it() -> None:
    example = painted()
    areas = []
    for seed in range(30):
        out = run(Cutout(20), example, seed)
        hidden = out["mask"] == IGNORE
        areas.append(hidden.sum())
        assert (out["image"][hidden] == geometry.mean_colour(example["image"])).all()
        assert np.array_equal(out["image"][~hidden], example["image"][~hidden])
    assert max(areas) == 400
    assert 0 < min(areas) < 400


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_a_caption_goes_where_it_may_be_false(transform: Transform) -> None:
    example = painted()
    out = run(transform, example)
    if isinstance(transform, Resize | ResizeShort | PadTo | PadToMultiple | Flip) or transform in (
        CenterCrop(70, 90),  # larger than the picture
        RandomScaleCrop(96, 120, low=0.5, high=0.8),
    ):
        assert out["caption"] == example["caption"]
    else:
        assert "caption" not in out


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels(channels: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (24, 20, channels), np.uint8)
    for transform in ALL:
        small = dataclasses.replace(transform, height=32, width=32) if isinstance(transform, PadTo) else transform
        assert run(small, {"image": image})["image"].shape[2] == channels
    planes = [run(Resize(11, 30), {"image": image[:, :, c : c + 1]})["image"] for c in range(channels)]
    assert np.array_equal(run(Resize(11, 30), {"image": image})["image"], np.concatenate(planes, axis=2))


# --- the frame --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", EXACT + RESAMPLED + WARPED, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_frame_says_where_the_pictures_points_are(transform: Transform, seed: int) -> None:
    """The frame takes a box's corners to where the transform takes the box, and ramps of x and y to themselves."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ramp = np.stack([2 * x + 40, 3 * y + 40, 0 * x], axis=2).astype(np.uint8)
    box = np.array([[20.0, 15.0, 50.0, 45.0]], np.float32)
    example = {"image": ramp, "mask": np.zeros((HEIGHT, WIDTH), np.uint8), "frame": np.eye(2, 3)}
    out = transform(np.random.default_rng(seed), example | {"boxes": box})
    corners = out["frame"] @ np.array([[20, 50, 20, 50], [15, 15, 45, 45], [1, 1, 1, 1]], float)
    h, w = out["image"].shape[:2]
    around = np.concatenate([corners.min(1), corners.max(1)])
    np.testing.assert_allclose(out["boxes"], np.clip(around, 0, (w, h, w, h))[None][: len(out["boxes"])], atol=1e-3)
    v, u = np.argwhere(ndimage.binary_erosion(out["mask"] == 0, iterations=4))[::7].T
    back = np.linalg.inv(np.vstack([out["frame"], (0, 0, 1)]))[:2]
    there = back @ np.stack([u + 0.5, v + 0.5, np.ones(len(u))]) - 0.5
    inside = (there > 3).all(0) & (there[0] < WIDTH - 4) & (there[1] < HEIGHT - 4)
    found = out["image"][v, u].T[:2].astype(float)
    assert np.abs(found - (there * np.array([[2], [3]]) + 40))[:, inside].max() <= 2.5
    assert inside.any()


def test_the_frame_stays_where_only_colours_change_and_reaches_no_batch() -> None:
    example = painted() | {"frame": np.eye(2, 3)}
    for transform in PAINTED:
        np.testing.assert_array_equal(transform(np.random.default_rng(0), example)["frame"], np.eye(2, 3))

    class One:
        classes = ("a", "b")

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Example:
            return {"image": example["image"], "frame": np.eye(2, 3)}

    assert batches.rows_at(One(), (Flip(1.0),), [0, 0]).keys() == {"image"}
