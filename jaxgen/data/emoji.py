"""The data set `emoji`: 3,900 pictures in colour with their names, drawn from a font and so the same everywhere."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgen.data import render_emoji
from jaxgen.data.fake import FakeCaptions
from jaxgen.data.render_emoji import LANGUAGES, MAN, MIXED, NOBODY, PERSON, SIDE, TONES, WOMAN
from jaxgen.data.source import Examples, Shape, Source, checked
from jaxgen.data.tfds import records
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

__all__ = ["LANGUAGES", "MAN", "MIXED", "NOBODY", "PERSON", "TONES", "WOMAN", "Attributes", "Emoji"]

LARGEST = 1024  # pixels

Language = Literal["en", "ko", "ja", "zh", "de", "fr", "es", "it", "pt", "ru", "tr", "id", "ar", "fa"]


@dataclasses.dataclass(frozen=True)
class Attributes:
    """What one emoji shows, to read pictures back by."""

    emoji: str
    subject: str
    """The emoji without tone, gender and side: "🧑‍🚒" of each firefighter."""
    tone: int
    """Position in TONES: 0 none (drawn yellow), 1 light … 5 dark; 6 = MIXED, several people who differ."""
    gender: int
    """0 = PERSON, 1 = MAN, 2 = WOMAN; 3 = NOBODY, where the code points tell none: things, animals, hands, couples."""


@dataclasses.dataclass(frozen=True)
class Emoji:
    """Emoji on a plain ground: `image` u8[size size 3], `caption` str[], `tone` and `gender` i32[] as in `Attributes`.

    A caption is the Unicode CLDR's name in words; a tone of skin, and what follows it, is set off by commas: "woman
    firefighter, medium skin tone", "man, dark skin tone, red hair". People without a tone are drawn yellow.

    "held_out" are combinations of person, gender and tone of which "train" has each part, but never all together:
    the same person with this gender in all other tones, and so every word. "test" are other subjects, about 5 %, each
    in all its tones and genders, so that nothing in "train" is nearly the same; their captions may hold new words.
    No two splits share a picture.

    Drawn from OpenMoji (CC BY-SA 4.0) on first use, in about twenty seconds. Raises UserError if it cannot be written.
    """

    split: Literal["train", "test", "held_out"] = "train"
    size: int = 32
    """Height and width in pixels, at most 1,024. Above 128 each picture is drawn when it is read."""
    background: tuple[int, int, int] | None = (255, 255, 255)
    """RGB beneath the picture; None for `image` u8[size size 4], whose last channel is alpha."""
    language: Language = "en"
    """Of the captions."""

    def __post_init__(self) -> None:
        check_field(self, "size", 8 <= self.size <= LARGEST, f"from 8 to {LARGEST:,}")
        check_field(self, "language", self.language in LANGUAGES, f"one of {', '.join(LANGUAGES)}")
        ground = self.background
        bytes_ = ground is None or (len(ground) == 3 and all(0 <= level <= 255 for level in ground))
        check_field(self, "background", bytes_, "three levels from 0 to 255, or None for alpha")

    def open(self) -> Examples:
        keys = {key: key for key in ("image", "emoji", "tone", "gender")} | {"caption": f"caption_{self.language}"}
        return checked(_Pictures(self._records(keys), self), where=f"emoji ({self.split}), example {{}}".format)

    def attributes(self) -> tuple[Attributes, ...]:
        """Return what each example shows, in the order of the examples."""
        found = self._records({key: key for key in ("emoji", "subject", "tone", "gender")})
        rows = (found[i] for i in range(len(found)))
        return tuple(Attributes(**{key: value.item() for key, value in row.items()}) for row in rows)

    def captions(self) -> tuple[str, ...]:
        """Return the caption of each example, for a vocabulary of words."""
        found = self._records({"caption": f"caption_{self.language}"})
        return tuple(found[i]["caption"].item() for i in range(len(found)))

    def shape(self) -> Shape:
        return self.size, self.size, 4 if self.background is None else 3

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeCaptions.of(shape, 0, count)

    def _records(self, keys: dict[str, str]) -> Examples:
        from jaxgen.data import builders  # imports TFDS, and a command that opens no data need not wait

        return records(builders.prepared(builders.EmojiBuilder), self.split, keys, ())


class _Pictures:
    """The records at the size and on the ground that were asked for."""

    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, kept: Examples, source: Emoji):
        self.origin = f"emoji ({source.split})"
        self._kept, self._source = kept, source

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        example = dict(self._kept[index])
        text = example.pop("emoji").item()
        picture = Image.fromarray(example["image"])
        if self._source.size > SIDE:
            drawn = render_emoji.draw(text, self._source.size)
            if drawn is None:
                raise UserError(f"the font that is installed has no {text}; prepare the data set `emoji` again")
            picture = drawn
        return example | {"image": _laid(render_emoji.reduced(picture, self._source.size), self._source.background)}


def _laid(picture: Image.Image, ground: tuple[int, int, int] | None) -> UInt8[np.ndarray, "h w c"]:
    """Lay a picture on a ground; without one, it keeps its alpha."""
    if ground is None:
        return np.array(picture)
    paper = Image.new("RGB", picture.size, ground)
    paper.paste(picture, mask=picture)
    return np.array(paper)
