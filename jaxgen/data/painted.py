"""A translation whose truth is known but never shown: pictures, and paintings of other pictures."""

import dataclasses
import zlib

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.data.augment import chroma
from jaxgen.data.emoji import Emoji
from jaxgen.data.source import Examples, Fakeable, Shape, Source, described, name_of
from jaxgen.data.unpaired import FakeDomains
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paint:
    """Paint a picture in colours: smooth strokes with sharp edges (Kuwahara's filter), then every hue turned.

    A stroke is the mean of that of four squares at each pixel's corners which is the most even (Kuwahara et al., in
    Digital Processing of Biomedical Images, 1976). Greys keep their colour. Raises UserError for a picture that is not
    u8[h w 3].
    """

    radius: int = 1
    """Pixels that a square reaches; 0 for no strokes."""
    hue: float = 1 / 3
    """Turn of the hue, in circles: at 1/3 yellow becomes pink, at 2/3 cyan."""
    saturation: float = 1.0
    """Factor of the distance from grey."""

    def __post_init__(self) -> None:
        check_field(self, "radius", self.radius >= 0, "0 or more")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        return example | {"image": self.painted(example["image"])}

    def painted(self, image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
        """Return the painting of a picture."""
        if image.dtype != np.uint8 or image.shape[2] != 3:
            raise UserError(f"Paint paints bytes in three colours; the picture is {image.dtype} {image.shape}")
        strokes = kuwahara(image.astype(np.float32), self.radius)
        turned = strokes @ chroma(self.saturation, self.hue).T.astype(np.float32)
        return np.clip(turned + np.float32(0.5), 0, 255).astype(np.uint8)


def kuwahara(image: Float[np.ndarray, "h w c"], radius: int) -> Float[np.ndarray, "h w c"]:
    """Replace each pixel by the mean of that square of side radius + 1 with a corner there whose greys vary least.

    Beyond the border lies what lies on it. At equal variances the first square counts, from the top left.
    """
    if not radius:
        return image
    side = radius + 1
    padded = np.pad(image.astype(np.float64), ((radius, radius), (radius, radius), (0, 0)), mode="edge")
    grey = padded @ _GREY.astype(np.float64)
    stacked = np.concatenate([padded, grey[..., None], np.square(grey)[..., None]], axis=2)
    total = np.pad(stacked.cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    windows = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    means = windows / side**2
    h, w, c = image.shape
    four = np.stack([means[y : y + h, x : x + w] for y in (0, radius) for x in (0, radius)])
    # What rounding leaves must not decide between squares that are equally even.
    variance = np.round(four[..., c + 1] - np.square(four[..., c]), 3)
    best = variance.argmin(0)[None, :, :, None]
    return np.take_along_axis(four[..., :c], best, axis=0)[0].astype(np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Painted:
    """Pictures beside their paintings, to measure a translation: `source`, and `target` and `image`, the painting.

    All three are u8[h w 3]; other arrays of the source are left out.
    """

    source: Source
    paint: Paint = Paint()

    def open(self) -> Examples:
        return _Painted(self.source.open(), self.paint)

    def shape(self) -> Shape | None:
        return self.source.shape() if isinstance(self.source, Fakeable) else None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return dataclasses.replace(FakeDomains.of(shape, count), matched=True)


class _Painted:
    classes: tuple[str, ...] = ()

    def __init__(self, examples: Examples, paint: Paint):
        self.origin, self.notes = described(examples)
        self._examples, self._paint = examples, paint

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        picture = self._examples[index]["image"]
        painting = self._paint.painted(picture)
        return {"image": painting, "source": picture, "target": painting}

    def name(self, index: int) -> str:
        return name_of(self._examples, index)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SomeEmoji:
    """The emoji of one of two halves of their subjects, `image` u8[size size 3] alone: neither half shows the other's.

    All tones and genders of a subject are in one half, which its code points decide. Raises UserError for another half
    than 0 and 1.
    """

    emoji: Emoji = Emoji()
    half: int = 0

    def __post_init__(self) -> None:
        check_field(self, "half", self.half in (0, 1), "0 or 1")

    def open(self) -> Examples:
        subjects = [shown.subject for shown in self.emoji.attributes()]
        chosen = [i for i, subject in enumerate(subjects) if zlib.crc32(subject.encode()) % 2 == self.half]
        return _Some(self.emoji.open(), chosen)

    def shape(self) -> Shape:
        return self.emoji.shape()

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return self.emoji.fake(shape, classes, count)


class _Some:
    classes: tuple[str, ...] = ()

    def __init__(self, examples: Examples, chosen: list[int]):
        self.origin, self.notes = described(examples)
        self._examples, self._chosen = examples, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Example:
        return {"image": self._examples[self._chosen[index]]["image"]}

    def name(self, index: int) -> str:
        return name_of(self._examples, self._chosen[index])
