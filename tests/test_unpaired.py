"""Two domains that nobody has matched, and paintings whose truth is known."""

import dataclasses

import numpy as np
import pytest

from jaxgen.data import batches
from jaxgen.data.augment import Affine, Flip, Resize
from jaxgen.data.batches import Pipeline
from jaxgen.data.emoji import Emoji
from jaxgen.data.fake import FakeLabels
from jaxgen.data.painted import Paint, Painted, SomeEmoji, kuwahara
from jaxgen.data.tfds import Tfds
from jaxgen.data.unpaired import EitherDomain, FakeDomains, Unpaired
from jaxgen.errors import DataNotFound, UserError
from jaxgen.typing import Example

PICTURES = FakeLabels(height=8, width=10, classes=0, size=7)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Pictures of one value: their number."""

    size: int

    def open(self) -> "Numbers":
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Example:
        return {"image": np.full((2, 2, 1), index, np.uint8), "label": np.array(index, np.int32)}


def numbers(a: int, b: int) -> Unpaired:
    return Unpaired(a=Pipeline(source=Numbers(a)), b=Pipeline(source=Numbers(b)))


def rows(examples, seed: int = 3, start: int = 0, stop: int = 12, batch: int = 5) -> list[dict]:
    return list(batches.train_batches(examples, (), seed=seed, batch_size=batch, start=start, stop=stop))


def order(made: list[dict], key: str) -> list[int]:
    return [int(x) for batch in made for x in batch[key][:, 0, 0, 0]]


def test_each_side_is_drawn_as_a_pipeline_of_its_own():
    moves = (Flip(), Affine())
    other = dataclasses.replace(PICTURES, size=12, seed=1)
    both = Unpaired(a=Pipeline(source=PICTURES, transforms=moves), b=Pipeline(source=other)).open()
    made = rows(both)
    alone = list(batches.train_batches(PICTURES.open(), moves, seed=3, batch_size=5, start=0, stop=12))
    assert all(np.array_equal(x["source"], y["image"]) for x, y in zip(made, alone, strict=True))
    assert {key: value.shape for key, value in made[0].items()} == dict.fromkeys(("image", "source"), (5, 8, 10, 3))
    # Batch k is a function of (seed, k), wherever a run starts.
    later = rows(both, start=7)
    for x, y in zip(made[7:], later, strict=True):
        assert all(np.array_equal(x[key], y[key]) for key in x)
    assert not np.array_equal(made[0]["image"], rows(both, seed=4)[0]["image"])


def test_sides_of_any_length_are_run_through_and_never_aligned():
    made = rows(numbers(6, 20).open(), stop=24)
    a, b = order(made, "source"), order(made, "image")
    assert all(sorted(a[i : i + 6]) == list(range(6)) for i in range(0, 120, 6))
    assert all(sorted(b[i : i + 20]) == list(range(20)) for i in range(0, 120, 20))
    assert len({tuple(b[i : i + 20]) for i in range(0, 120, 20)}) == 6
    made = rows(numbers(50, 50).open(), stop=100)
    same = np.mean(np.equal(order(made, "source"), order(made, "image")))
    assert same < 0.06  # one in fifty by chance


def test_evaluation_sees_every_picture_of_the_longer_side():
    examples = numbers(3, 7).open()
    assert len(examples) == 7
    (batch,) = batches.test_batches(examples, (), batch_size=7)
    assert batch["image"][:, 0, 0, 0].tolist() == list(range(7))
    assert batch["source"][:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_sides_that_do_not_fit_are_refused(tmp_path):
    grey = dataclasses.replace(PICTURES, channels=1)
    with pytest.raises(UserError, match=r"pictures of a are of 8x10x3 and b of 8x10x1; give both sides transforms"):
        Unpaired(a=Pipeline(source=PICTURES), b=Pipeline(source=grey)).open()
    resized = Pipeline(source=PICTURES, transforms=(Resize(4, 5),))
    with pytest.raises(UserError, match="8x10x3 and b of 4x5x3"):
        Unpaired(a=Pipeline(source=PICTURES), b=resized).open()
    with pytest.raises(UserError, match="the domain b is empty; its source holds no pictures"):
        numbers(3, 0).open()
    absent = Unpaired(
        a=Pipeline(source=Tfds("cycle_gan/horse2zebra", split="trainA", label=None, data_dir=str(tmp_path))),
        b=Pipeline(source=PICTURES),
    )
    with pytest.raises(DataNotFound, match="tfds build cycle_gan/horse2zebra"):
        absent.open()


def test_either_domain_takes_turns_and_says_which():
    sides = {"a": Pipeline(source=PICTURES, transforms=(Affine(),)), "b": Pipeline(source=Numbers(5))}
    either = EitherDomain(a=Pipeline(source=Numbers(3)), b=Pipeline(source=Numbers(5))).open()
    assert either.classes == ("a", "b")
    made = rows(either, stop=6)  # 30 positions: five times a's three, three times b's five
    assert set(made[0]) == {"image", "label"}
    labels, values = (np.concatenate([batch[key].reshape(5, -1)[:, 0] for batch in made]) for key in ("label", "image"))
    assert labels.tolist() == [0, 1] * 15
    assert sorted(values[::2]) == sorted([*range(3)] * 5)
    assert sorted(values[1::2]) == sorted([*range(5)] * 3)
    # Each side is drawn as it is without the other.
    unpaired = order(rows(Unpaired(**{**sides, "b": sides["a"]}).open(), stop=3), "source")
    alone = rows(EitherDomain(**{**sides, "b": sides["a"]}).open(), stop=6)
    assert order(alone, "image")[::2] == unpaired
    (batch,) = batches.test_batches(either, (), batch_size=10)
    assert batch["image"][:, 0, 0, 0].tolist() == [0, 0, 1, 1, 2, 2, 0, 3, 1, 4]
    assert batch["label"].tolist() == [0, 1] * 5
    with pytest.raises(UserError, match="EitherDomain: pictures of a are of 8x10x3 and b of 2x2x1"):
        EitherDomain(**sides).open()
    assert EitherDomain(a=resized(), b=resized()).fake((4, 4, 1), 0, 5).open().classes == ("class 0", "class 1")


def test_its_shape_is_known_without_data():
    tfds = Tfds("cycle_gan/horse2zebra", split="trainB", label=None)
    side = Pipeline(source=tfds, transforms=(Resize(6, 9),))
    assert Unpaired(a=side, b=side).shape() == (6, 9, 3)
    assert Unpaired(a=resized(), b=resized()).fake((4, 4, 1), 2, 5) == FakeDomains(
        height=4, width=4, channels=1, size=5
    )
    example = FakeDomains(height=4, width=6, matched=True).open()[3]
    np.testing.assert_array_equal(example["target"], example["source"][::-1])
    np.testing.assert_array_equal(example["target"], example["image"])
    assert "target" not in FakeDomains(height=4, width=6).open()[3]


def resized() -> Pipeline:
    return Pipeline(source=PICTURES, transforms=(Resize(4, 5),))


# --- paintings --------------------------------------------------------------------------------------------------------


def test_strokes_keep_edges_and_even_out_what_lies_between():
    step = np.zeros((6, 8, 3), np.float32)
    step[:, 4:] = 200.0
    np.testing.assert_allclose(kuwahara(step, 1), step, atol=1e-3)
    rng = np.random.default_rng(0)
    noisy = step + rng.normal(0, 5, step.shape).astype(np.float32)
    painted = kuwahara(noisy, 2)
    assert painted[:, :4].std() < 0.6 * noisy[:, :4].std()
    assert painted[:, 4:].mean() - painted[:, :4].mean() > 190
    # A pixel by its definition: of the four squares with a corner there, the mean of the most even one.
    grey = noisy @ np.array([0.299, 0.587, 0.114])
    four = [(slice(y, y + 3), slice(x, x + 3)) for y in (0, 2) for x in (1, 3)]
    best = min(four, key=lambda s: grey[s].var())
    np.testing.assert_allclose(painted[2, 3], noisy[best].mean((0, 1)), rtol=1e-4)
    np.testing.assert_array_equal(kuwahara(noisy, 0), noisy)


def test_paint_turns_hues_and_leaves_greys():
    paint = Paint(radius=0)
    grey = np.full((2, 2, 3), 130, np.uint8)
    np.testing.assert_array_equal(paint.painted(grey), grey)
    yellow = np.broadcast_to(np.array([252, 234, 43], np.uint8), (2, 2, 3))
    turned = paint.painted(yellow)[0, 0].astype(int)
    assert np.abs(turned - yellow[0, 0]).max() > 100
    thrice = dataclasses.replace(paint, hue=1.0).painted(yellow)
    assert np.abs(thrice.astype(int) - yellow).max() <= 1
    with pytest.raises(UserError, match="paints bytes in three colours"):
        paint.painted(np.zeros((2, 2, 1), np.uint8))
    with pytest.raises(UserError, match=r"Paint.radius is -1"):
        Paint(radius=-1)


def test_halves_of_the_emoji_share_no_subject_and_paintings_lie_beside_their_pictures():
    halves = [SomeEmoji(half=half) for half in (0, 1)]
    kept = [half.open() for half in halves]
    assert sum(map(len, kept)) == len(Emoji().open())
    assert min(map(len, kept)) > 1500
    subjects = {shown.subject for shown in Emoji().attributes()}
    assert len(subjects) > 1500
    assert kept[0][5].keys() == {"image"}
    example = Painted(source=Emoji(split="test")).open()[7]
    np.testing.assert_array_equal(example["source"], Emoji(split="test").open()[7]["image"])
    np.testing.assert_array_equal(example["target"], Paint().painted(example["source"]))
    assert example.keys() == {"image", "source", "target"}
    with pytest.raises(UserError, match="half is 2; it must be 0 or 1"):
        SomeEmoji(half=2)
