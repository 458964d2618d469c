"""Laws of every source: ids are mapped at once, checked at opening and at reading, and kept where they fit."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest

from jaxgen.data import batches
from jaxgen.data.digits import Digits
from jaxgen.data.fake import FakeLabels, FakeLatents, FakeMasks
from jaxgen.data.folder import Folder, Images, SegmentationFolder
from jaxgen.data.latents import Latents
from jaxgen.data.mixture import Ring, Spiral
from jaxgen.data.scenes import Scenes
from jaxgen.data.source import SAMPLE, Examples, Fakeable, Source, check_labels, checked, remap
from jaxgen.data.stacked import StackedDigits
from jaxgen.data.tfds import Tfds
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.models.fcn import Fcn
from jaxgen.nn.backbones import SmallBackbone
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.typing import IGNORE, Example

REDUCE_ZERO = (255, *range(150))  # ADE20K: 0 is "other", which is not learned


@dataclasses.dataclass
class Masks:
    """Examples with the given masks; counts how often each is read."""

    masks: list[np.ndarray]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        self.reads = [0] * len(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: int) -> Example:
        self.reads[index] += 1
        return {"image": np.zeros((*self.masks[index].shape, 3), np.uint8), "mask": self.masks[index]}


@dataclasses.dataclass
class Labels:
    labels: list[int]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": np.zeros((2, 2, 1), np.uint8), "label": np.array(self.labels[index], np.int32)}


def names(count: int) -> tuple[str, ...]:
    return tuple(f"c{k}" for k in range(count))


def row(*ids: int) -> np.ndarray:
    return np.array([ids], np.uint8)


def open_one(mask: np.ndarray, classes: int, lookup: tuple[int, ...] = ()) -> np.ndarray:
    return checked(Masks([mask], names(classes)), lookup)[0]["mask"]


def test_check_labels_lists_what_it_found() -> None:
    check_labels(np.array([0, 3, 255, 255]), names(4))
    for foreign in ([0, 4], [0, 254], [-1, 0]):
        with pytest.raises(UserError, match=r"found ids \{.*\}; expected 0..3 or 255 \(ignore\)") as caught:
            check_labels(np.array(foreign), names(4))
        assert all(str(i) in str(caught.value) for i in foreign)


@pytest.mark.parametrize("foreign", [4, 128, 254])
def test_foreign_ids_are_refused_when_opened(foreign: int) -> None:
    with pytest.raises(UserError, match=rf"example 0: found ids \{{0, 1, {foreign}\}}"):
        open_one(row(0, 1, foreign), 4)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint16])
def test_ids_that_do_not_fit_in_a_byte_are_refused_and_never_wrap(dtype: type) -> None:
    for foreign in (256, 300) if dtype == np.uint16 else (-1, 256):
        mask = np.array([[0, 1, foreign]], dtype)
        for lookup in ((), (255, 0, 1)):
            with pytest.raises(UserError, match=str(foreign)):
                open_one(mask, 2, lookup)


def test_a_foreign_id_outside_the_sample_is_found_when_it_is_read() -> None:
    masks = [row(0, 1)] * (10 * SAMPLE)
    masks[1] = row(0, 9)
    examples = checked(Masks(masks, names(2)))
    assert examples[0]["mask"].tolist() == [[0, 1]]
    with pytest.raises(UserError, match=r"example 1: found ids \{0, 9\}"):
        examples[1]


def test_reduce_zero_label_maps_0_to_ignore_and_keeps_255() -> None:
    mapped = open_one(row(0, 1, 150, 255), 150, REDUCE_ZERO)
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == [[255, 0, 149, 255]]


@pytest.mark.parametrize("ids", [{3: 2, 4: 1}, {6: 9, 9: 7}, {0: 1, 1: 0}])
def test_a_lookup_maps_all_ids_at_once(ids: dict[int, int]) -> None:
    raw = np.arange(10, dtype=np.uint8)[None]
    expected = [[ids.get(i, i) for i in range(10)]]
    assert open_one(raw, 10, remap(ids)).tolist() == expected


def test_a_lookup_must_stay_within_a_byte() -> None:
    with pytest.raises(UserError, match=r"0\.\.255"):
        open_one(row(0, 1), 2, (0, 256))


def test_a_lookup_maps_ids_of_16_bits_and_leaves_those_it_does_not_name_foreign() -> None:
    raw = np.array([[0, 1, 255, 300, 65535]], np.uint16)
    assert open_one(raw, 2, remap({65535: 255, 300: 1})).tolist() == [[0, 1, 255, 1, 255]]
    assert open_one(raw[:, :3].astype(np.uint8), 2, remap({65535: 255})).tolist() == [[0, 1, 255]]
    with pytest.raises(UserError, match=r"found ids \{0, 1, 255, 300\}; expected 0\.\.1 or 255"):
        open_one(raw, 2, remap({65535: 255}))


def test_a_lookup_of_what_no_mask_or_class_has_is_refused() -> None:
    for ids in ({-1: 7}, {1 << 16: 0}):
        with pytest.raises(UserError, match=r"remap: raw id -?\d+; a lookup maps 0\.\.65535"):
            remap(ids)
    with pytest.raises(UserError, match="remap: 256 is no id"):
        remap({1: 256})
    with pytest.raises(UserError, match="in place of -1, which no `lookup` can map"):
        open_one(np.array([[-1, 0, 1]], np.int32), 2)
    with pytest.raises(UserError, match=r"lookup: ids must lie in 0\.\.255, found -1\.\.0"):
        open_one(row(0, 1), 2, (0, -1))


@pytest.mark.parametrize("classes", [256, 300])
def test_more_classes_than_a_mask_has_ids_are_refused(classes: int) -> None:
    with pytest.raises(UserError, match=rf"masks: {classes} classes, .* 0\.\.254 and 255 \(ignore\)"):
        open_one(np.array([[0, 255, 299]], np.uint16), classes)
    assert open_one(row(0, 254, 255), 255).tolist() == [[0, 254, 255]]
    net = Learner(module=Fcn(backbone=SmallBackbone(), classes=classes))
    shapes = {"image": (1, 32, 32, 3), "mask": (1, 32, 32)}
    spec = {name: jax.ShapeDtypeStruct(shape, np.uint8) for name, shape in shapes.items()}
    with pytest.raises(UserError, match=f"masks: {classes} classes"):
        Segmentation(net=net).check(spec, names(classes))


@pytest.mark.parametrize("source", [Folder("/data"), SegmentationFolder("/a", "/b", ()), Tfds("cats")])
def test_a_string_in_place_of_class_names_is_not_read_letter_by_letter(source: Source) -> None:
    object.__setattr__(source, "classes", "cat")  # where types are checked at run time, no caller gets so far
    with pytest.raises(UserError, match=r"classes is a string; write \('cat',\)"):
        source.__post_init__()


def test_masks_of_0_and_255_say_what_to_do() -> None:
    with pytest.raises(UserError, match=r"'c1', pass lookup=remap\(\{255: 1\}\)"):
        open_one(row(0, 255, 255), 2)
    assert open_one(row(0, 255, 255), 2, remap({255: 1})).tolist() == [[0, 1, 1]]
    # One mask without foreground is no mistake among others that have it.
    assert len(checked(Masks([row(0, 255), row(0, 1)], names(2)))) == 2


def test_class_labels_have_no_ignore() -> None:
    assert checked(Labels([0, 2, 1], names(3)))[1]["label"] == 2
    for wrong in (3, 255, -1):
        with pytest.raises(UserError, match=f"label {wrong}; expected 0..2"):
            checked(Labels([0, wrong], names(3)))


def test_nothing_to_read_is_an_error() -> None:
    with pytest.raises(UserError, match="no examples"):
        checked(Labels([], names(3)))


def test_what_fits_is_decoded_once_and_what_does_not_is_read_again() -> None:
    for limit, reads in ((1 << 20, 1), (1, 3)):
        source = Masks([row(0, 1)] * (SAMPLE * 4), names(2))
        examples = checked(source, limit_bytes=limit)
        sampled = sum(source.reads)
        assert sampled == SAMPLE
        fresh = source.reads.index(0)
        for _ in range(3):
            assert examples[fresh]["mask"].tolist() == [[0, 1]]
        assert source.reads[fresh] == reads


def test_examples_cannot_be_written_to_and_travel_without_their_pictures() -> None:
    examples = checked(Masks([np.zeros((64, 64), np.uint8)] * 50, names(2)))
    before = len(pickle.dumps(examples))
    with pytest.raises(ValueError, match="read-only"):
        examples[0]["mask"][0] = 1
    for i in range(50):
        examples[i]
    copy = pickle.loads(pickle.dumps(examples))
    assert len(pickle.dumps(examples)) == before
    assert np.array_equal(copy[3]["mask"], examples[3]["mask"])


FAKES = [
    FakeLabels(height=9, width=7, channels=1, classes=4, size=12),
    FakeMasks(height=9, width=14, channels=3, classes=5, size=12),
]


@pytest.mark.parametrize("fake", FAKES)
def test_fakes_are_functions_of_seed_and_index(fake: FakeLabels | FakeMasks) -> None:
    first, again, other = fake.open(), fake.open(), dataclasses.replace(fake, seed=1).open()
    assert isinstance(first, Examples)
    assert len(list(first)) == len(first) == 12
    target = "label" if "label" in first[0] else "mask"
    for i in range(12):
        assert all(np.array_equal(first[i][key], again[i][key]) for key in ("image", target))
        assert not np.array_equal(first[i]["image"], other[i]["image"])
        assert first[i]["image"].shape == (fake.height, fake.width, fake.channels)
        check_labels(np.ravel(first[i][target]).astype(int), first.classes)
    assert first[0]["image"].dtype == np.uint8


def test_fake_images_carry_their_labels() -> None:
    labels = FakeLabels(height=8, width=8, classes=4, size=40).open()
    means = {int(e["label"]): e["image"].mean((0, 1)) for e in labels}
    assert set(means) == {0, 1, 2, 3}
    for example in labels:
        nearest = min(means, key=lambda k: np.abs(means[k] - example["image"].mean((0, 1))).sum())
        assert nearest == example["label"]
    example = FakeMasks(height=32, width=32, classes=3).open()[0]
    valid = example["mask"] != IGNORE
    assert 0 < (~valid).sum() < valid.sum()
    found = [example["image"][example["mask"] == k].mean(0) for k in np.unique(example["mask"][valid])]
    assert len(found) > 1
    assert all(np.abs(a - b).max() > 20 for i, a in enumerate(found) for b in found[:i])


HERE = [Digits(), Scenes(), StackedDigits(size=9), Ring(size=9), Spiral(size=9), *FAKES, FakeLatents(size=9)]
ELSEWHERE = {
    Folder("nowhere"): (FakeLabels, "label"),
    SegmentationFolder("nowhere", "nowhere", ("a", "b")): (FakeMasks, "mask"),
    Latents(folder="nowhere"): (FakeLatents, "label"),
    Tfds("cifar10"): (FakeLabels, "label"),
    Tfds("cityscapes/semantic_segmentation", mask="segmentation_label"): (FakeMasks, "mask"),
}


@pytest.mark.parametrize("source", HERE, ids=repr)
def test_fake_data_has_the_shapes_of_its_own(source: Source) -> None:
    assert isinstance(source, Fakeable)
    opened = source.open()
    own = batches.DataSpec.of(opened, ())
    shape = source.shape()
    assert shape == own.element["image"][0]
    fake = source.fake(shape, len(own.classes), 5).open()
    assert len(fake) == 5
    there = batches.DataSpec.of(fake, ())
    assert there.element == own.element
    assert len(there.classes) == len(own.classes)


@pytest.mark.parametrize("source", ELSEWHERE, ids=repr)
def test_data_that_is_not_here_is_faked_by_its_kind(source: Source) -> None:
    assert isinstance(source, Fakeable)
    kind, target = ELSEWHERE[source]
    fake = source.fake((8, 10, 3), 7, 5)
    assert isinstance(fake, kind)
    opened = fake.open()
    assert len(opened) == 5
    assert opened[0].keys() == {"image", target}
    assert opened[0]["image"].shape == (8, 10, 3)
    assert len(opened.classes) == 7


def test_images_without_a_label_have_none_when_faked() -> None:
    fake = Tfds("cifar10", label=None).fake((8, 8, 3), 7, 5)
    flat = Images("nowhere").fake((8, 8, 3), 7, 5)
    for source in (fake, fake.fake((8, 8, 3), 7, 5), flat):
        opened = source.open()
        assert opened.classes == ()
        assert opened[4].keys() == {"image"}
        assert not np.array_equal(opened[3]["image"], opened[4]["image"])
