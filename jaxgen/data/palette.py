"""The damage of Palette's tasks (arXiv:2111.05826): colour gone, a piece missing, JPEG; and a draw among several."""

import dataclasses

import numpy as np
from PIL import Image

from jaxgen.data.damage import Damage, as_bytes
from jaxgen.data.jpeg import through_jpeg
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

GROUND = 127  # grey of a missing piece


@dataclasses.dataclass(frozen=True)
class ToGrey(Damage):
    """Make the colours grey of the same luma, in three channels still; `target` is the image as it was."""

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        image = as_bytes(self, example)
        if image.shape[2] != 3:
            raise UserError(f"ToGrey takes colours away; this image has {image.shape[2]} channel(s)")
        grey = np.asarray(Image.fromarray(image).convert("L"))
        return example | {"image": np.repeat(grey[:, :, None], 3, 2), "target": image}


@dataclasses.dataclass(frozen=True, kw_only=True)
class EraseBox(Damage):
    """Make a box of the image grey, at a place and of a size drawn at random; `target` is the image as it was."""

    sides: tuple[float, float] = (0.3, 0.6)
    """Height and width of the box, as shares of the image's, are drawn from this range."""

    def __post_init__(self) -> None:
        check_field(self, "sides", 0 < self.sides[0] <= self.sides[1] <= 1, "a range of shares, above 0 up to 1")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        image = as_bytes(self, example)
        spans = []
        for side in image.shape[:2]:
            length = max(1, round(side * rng.uniform(*self.sides)))
            start = int(rng.integers(0, side - length + 1))
            spans.append(slice(start, start + length))
        torn = image.copy()
        torn[spans[0], spans[1]] = GROUND
        return example | {"image": torn, "target": image}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompressJpeg(Damage):
    """Write the image as a JPEG of a quality drawn at random, and read it; `target` is the image as it was."""

    quality: tuple[int, int] = (5, 30)
    """The range of qualities, of 1 to 100, both ends included."""

    def __post_init__(self) -> None:
        check_field(self, "quality", 1 <= self.quality[0] <= self.quality[1] <= 100, "a range within 1 to 100")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        image = as_bytes(self, example)
        if image.shape[2] not in (1, 3):
            raise UserError(f"a JPEG has one channel or three; this image has {image.shape[2]}")
        quality = int(rng.integers(self.quality[0], self.quality[1] + 1))
        return example | {"image": through_jpeg(image, quality), "target": image}


@dataclasses.dataclass(frozen=True)
class OneOf(Damage):
    """Damage the image in one of several ways, each as likely."""

    ways: tuple[Damage, ...]

    def __post_init__(self) -> None:
        check_field(self, "ways", len(self.ways) > 0, "at least one way")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        return self.ways[int(rng.integers(len(self.ways)))](rng, example)
