"""The data set `scenes`: real digits, several in an image, over real photographs."""

import dataclasses
import re
from typing import Literal

import numpy as np

from jaxgen.data import render
from jaxgen.data.fake import FakeMasks
from jaxgen.data.source import Examples, Shape, Source, checked, described
from jaxgen.data.tfds import records
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

Pair = tuple[str, int]  # a colour and a digit: ("red", 3)

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PAIRS: tuple[Pair, ...] = (
    ("red", 3), ("orange", 8), ("yellow", 1), ("green", 6), ("blue", 7), ("purple", 0), ("pink", 5), ("white", 2),
)  # fmt: skip
"""Eight of the eighty pairs, to keep from training: each colour once, and each digit but 4 and 9."""

_NOUN = re.compile(rf"\b({'|'.join(COLOURS)}) (\d)\b")


Split = Literal["train", "test", "held_out"]


def _check_pairs(source: "Scenes | DrawnScenes") -> None:
    name = type(source).__name__
    if wrong := [p for p in source.without if len(p) != 2 or p[0] not in COLOURS or p[1] not in range(10)]:
        raise UserError(f"{name}.without has {wrong[0]!r}; a pair is one of {', '.join(COLOURS)}, and a digit 0..9")
    if source.split == "held_out" and not source.without:
        raise UserError(f"{name}('held_out') needs the pairs that are held out: without=scenes.PAIRS")


def _belongs(caption: str, without: tuple[Pair, ...], split: Split) -> bool:
    """Whether a scene is of the split: with one of these pairs it is "held_out"."""
    shown = any((colour, int(digit)) in without for colour, digit in _NOUN.findall(caption))
    return shown == (split == "held_out")


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Coloured digits over crops of photographs, `image` u8[64 64 3]: 6,000 to train on, 1,000 to test.

    `mask` u8[64 64] holds 0 = background, d + 1 = digit d. Each digit has a box in `boxes` f32[k 4], the edges
    x0 y0 x1 y1 of its mask in pixels, and in `labels` i32[k] the id that the mask uses. `caption` says what is there,
    "a red 3 left of a blue 7". Test scenes share neither digits nor photograph with training scenes.

    Prepared on first use, in about ten seconds. Raises UserError if it cannot be written, or for a pair that is none.
    """

    split: Split = "train"
    """"held_out" are the test scenes that show a pair of `without`, which the other splits then leave out."""
    without: tuple[Pair, ...] = ()
    """Pairs of a colour and a digit: scenes that show one are left out. `PAIRS` is a choice of eight."""

    def __post_init__(self) -> None:
        _check_pairs(self)

    def open(self) -> Examples:
        from jaxgen.data import builders

        keys = {key: key for key in ("image", "mask", "boxes", "labels", "caption")}
        examples = checked(self._records(keys, ("background", *builders.DIGITS)))
        return _Some(examples, self._kept()) if self.without else examples

    def captions(self) -> tuple[str, ...]:
        """Return the caption of each example, for a vocabulary of words."""
        found = self._records({"caption": "caption"}, ())
        every = tuple(found[i]["caption"].item() for i in range(len(found)))
        return tuple(every[i] for i in self._chosen(every))

    def shape(self) -> Shape:
        return 64, 64, 3

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        """Return images, masks and captions: boxes are in no batch."""
        height, width, channels = shape
        return FakeMasks(height=height, width=width, channels=channels, classes=classes, size=count, captioned=True)

    def _records(self, keys: dict[str, str], classes: tuple[str, ...]) -> Examples:
        from jaxgen.data import builders  # imports TFDS, and a command that opens no data need not wait

        split = "test" if self.split == "held_out" else self.split
        return records(builders.prepared(builders.ScenesBuilder), split, keys, classes)

    def _kept(self) -> list[int]:
        found = self._records({"caption": "caption"}, ())
        return self._chosen([found[i]["caption"].item() for i in range(len(found))])

    def _chosen(self, captions: tuple[str, ...] | list[str]) -> list[int]:
        """The places of the scenes that belong to the split."""
        return [i for i, caption in enumerate(captions) if _belongs(caption, self.without, self.split)]


class _Some:
    """Some of the scenes."""

    def __init__(self, examples: Examples, kept: list[int]):
        self.classes = examples.classes
        self.origin, self.notes = described(examples)
        self._examples, self._kept = examples, kept

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        return self._examples[self._kept[index]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnScenes:
    """Scenes that are drawn when they are read, as many as one likes, a millisecond or two each; easier ones, too.

    Each has `image` u8[64 64 3], `mask` u8[64 64] and `caption`, as those of `Scenes`; scene i is a function of the
    split and i. Raises UserError for a pair that is none.
    """

    split: Split = "train"
    """"held_out": scenes of test digits that show a pair of `without`, which the other splits then do not."""
    size: int = 20_000
    most: int = 5
    """Digits in a scene, 2 to 5; there are 2 at least."""
    ground: render.Ground = "photograph"
    without: tuple[Pair, ...] = ()
    """Pairs of a colour and a digit: scenes that show one are drawn again. `PAIRS` is a choice of eight."""

    def __post_init__(self) -> None:
        check_field(self, "size", self.size >= 1, "1 or more")
        check_field(self, "most", 2 <= self.most <= 5, "2 to 5")
        _check_pairs(self)

    def open(self) -> Examples:
        return _Drawn(self)

    def captions(self) -> tuple[str, ...]:
        """Return the caption of each example, which draws them all."""
        return tuple(self.scene(i).caption for i in range(self.size))

    def shape(self) -> Shape:
        return 64, 64, 3

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return Scenes().fake(shape, classes, count)

    def scene(self, index: int) -> render.Scene:
        """Draw a scene."""
        split = "train" if self.split == "train" else "test"
        rng = np.random.default_rng((list(render.COLUMNS).index(split), index))
        while True:
            scene = render.draw(render.material(split), rng, self.ground, self.most)
            if _belongs(scene.caption, self.without, self.split):
                return scene


class _Drawn:
    """Scenes, each drawn when it is asked for."""

    classes: tuple[str, ...] = ("background", *map(str, range(10)))
    origin, notes = "scenes drawn as they are read", ()

    def __init__(self, source: DrawnScenes):
        self._source = source

    def __len__(self) -> int:
        return self._source.size

    def __getitem__(self, index: int) -> Example:
        scene = self._source.scene(index)
        return {
            "image": np.asarray(scene.image), "mask": np.asarray(scene.mask), "caption": np.array(scene.caption)
        }  # fmt: skip
