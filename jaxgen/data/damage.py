"""Transforms that damage the image and keep what it was as `target`: what a net is to restore."""

import abc
import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFilter

from jaxgen.data.bicubic import shrunk
from jaxgen.data.masks import wandering
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

Range = tuple[float, float]

GREY = np.array([0.299, 0.587, 0.114], np.float32)
_BROWNED = np.array([1.07, 0.98, 0.82], np.float32)  # what time makes of white paper, over its mean


class Damage(abc.ABC):
    """A transform whose images are to be restored: for training and measuring, not for pictures of the user."""

    @abc.abstractmethod
    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        """Return the example with a damaged image, and as `target` what it was."""


@dataclasses.dataclass(frozen=True)
class Shrink(Damage):
    """Make the image smaller by a factor, by MATLAB's bicubic filter; `target` is the image as it was.

    It must be the last transform. Raises UserError for sides that the factor does not divide.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        check_field(self, "factor", self.factor >= 1, "at least 1")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        image = as_bytes(self, example)
        height, width = image.shape[:2]
        if height % self.factor or width % self.factor:
            raise UserError(f"Shrink({self.factor}): an image of {height}x{width} does not divide; crop it before")
        return example | {"image": shrunk(image, self.factor), "target": image}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Age(Damage):
    """Make the image an old photograph; `target` is the image as it was. Each number is drawn from its range.

    In this order: colours fade towards brown, the whole towards grey, sharpness goes, grain comes, and scratches and
    specks take pieces away.
    """

    fading: Range = (0.2, 0.7)
    """Share of the contrast that is lost."""
    browning: Range = (0.3, 1.0)
    """Share of the colour that is lost to brown."""
    blur: Range = (0.0, 0.8)
    """Standard deviation of a Gaussian, in pixels."""
    grain: Range = (2.0, 12.0)
    """Standard deviation of the noise, in levels of 255."""
    scratches: Range = (1.0, 4.0)
    """Number of scratches for each 64×64 pixels."""
    specks: Range = (0.0, 4.0)
    """Number of specks for each 64×64 pixels."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            low, high = getattr(self, field.name)
            most = 1.0 if field.name in ("fading", "browning") else math.inf
            check_field(self, field.name, 0 <= low <= high <= most, "a range from 0 on, of shares up to 1")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        image = as_bytes(self, example)
        if image.shape[2] != 3:
            raise UserError(f"Age makes photographs in colour old; this image has {image.shape[2]} channel(s)")
        drawn = {field.name: float(rng.uniform(*getattr(self, field.name))) for field in dataclasses.fields(self)}
        faded = _faded(image.astype(np.float32), drawn["fading"], drawn["browning"])
        soft = Image.fromarray(levels(faded)).filter(ImageFilter.GaussianBlur(drawn["blur"]))
        grain = rng.normal(scale=drawn["grain"], size=(*image.shape[:2], 1)).astype(np.float32)
        aged = levels(np.asarray(soft, np.float32) + grain)
        area = image.shape[0] * image.shape[1] / 64**2
        counts = [int(rng.poisson(drawn[name] * area)) for name in ("scratches", "specks")]
        torn = _torn(rng, image.shape[:2], *counts)
        paper = np.clip(236 * _BROWNED / _BROWNED.max() + rng.normal(scale=6.0), 0, 255).astype(np.uint8)
        return example | {"image": np.where(torn[..., None], paper, aged), "target": image}


def _faded(image: Float[np.ndarray, "h w 3"], fading: float, browning: float) -> Float[np.ndarray, "h w 3"]:
    brown = (image @ GREY)[..., None] * _BROWNED
    coloured = (1 - browning) * image + browning * brown
    return (1 - fading) * coloured + fading * 150 * _BROWNED


def _torn(rng: np.random.Generator, size: tuple[int, int], scratches: int, specks: int) -> Bool[np.ndarray, "h w"]:
    """Draw lines that wander from one side to another, and spots."""
    height, width = size
    picture = Image.new("L", (width, height))
    pen = ImageDraw.Draw(picture)
    for _ in range(scratches):
        pen.line(wandering(rng, size, step=(3.0, 9.0)), fill=255, width=int(rng.integers(1, 3)))
    for _ in range(specks):
        (x, y), r = rng.uniform((0, 0), (width, height)), rng.uniform(0.5, 2.5)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
    return np.asarray(picture) > 0


def as_bytes(transform: Damage, example: Example) -> UInt8[np.ndarray, "h w c"]:
    """Return the example's image. Raises UserError unless it is bytes, and not damaged yet."""
    name = type(transform).__name__
    if "target" in example:
        raise UserError(f"{name}: the example has a `target` already; an image is damaged by one transform")
    if example["image"].dtype != np.uint8:
        raise UserError(f"{name} damages bytes; the image is {example['image'].dtype.name}")
    return example["image"]


def levels(image: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    """Return levels in 0..255, rounded; others are clipped."""
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)
