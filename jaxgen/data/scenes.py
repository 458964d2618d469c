"""The data set `scenes`: real digits, several in an image, over real photographs."""

import dataclasses
import re
from typing import Literal

from jaxgen.data.fake import FakeMasks
from jaxgen.data.source import Examples, Shape, Source, checked, described
from jaxgen.data.tfds import records
from jaxgen.errors import UserError
from jaxgen.typing import Example

Pair = tuple[str, int]  # a colour and a digit: ("red", 3)

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PAIRS: tuple[Pair, ...] = (
    ("red", 3), ("orange", 8), ("yellow", 1), ("green", 6), ("blue", 7), ("purple", 0), ("pink", 5), ("white", 2),
)  # fmt: skip
"""Eight of the eighty pairs, to keep from training: each colour once, and each digit but 4 and 9."""

_NOUN = re.compile(rf"\b({'|'.join(COLOURS)}) (\d)\b")


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Coloured digits over crops of photographs, `image` u8[64 64 3]: 6,000 to train on, 1,000 to test.

    `mask` u8[64 64] holds 0 = background, d + 1 = digit d. Each digit has a box in `boxes` f32[k 4], the edges
    x0 y0 x1 y1 of its mask in pixels, and in `labels` i32[k] the id that the mask uses. `caption` says what is there,
    "a red 3 left of a blue 7". Test scenes share neither digits nor photograph with training scenes.

    Prepared on first use, in about ten seconds. Raises UserError if it cannot be written, or for a pair that is none.
    """

    split: Literal["train", "test", "held_out"] = "train"
    """"held_out" are the test scenes that show a pair of `without`, which the other splits then leave out."""
    without: tuple[Pair, ...] = ()
    """Pairs of a colour and a digit: scenes that show one are left out. `PAIRS` is a choice of eight."""

    def __post_init__(self) -> None:
        if wrong := [p for p in self.without if len(p) != 2 or p[0] not in COLOURS or p[1] not in range(10)]:
            raise UserError(f"Scenes.without has {wrong[0]!r}; a pair is one of {', '.join(COLOURS)}, and a digit 0..9")
        if self.split == "held_out" and not self.without:
            raise UserError("Scenes('held_out') needs the pairs that are held out: without=scenes.PAIRS")

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
        held = set(self.without)
        shows = [any((colour, int(digit)) in held for colour, digit in _NOUN.findall(c)) for c in captions]
        return [i for i, shown in enumerate(shows) if shown == (self.split == "held_out")]


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
