"""Augmentations as values: pure functions of (rng, example) that keep image, target, mask and boxes aligned.

Mixup and CutMix mix the examples of a batch and so belong to the objective, on the device.
"""

import dataclasses
import math
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.data import geometry
from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example


@runtime_checkable
class Transform(Protocol):
    """A frozen dataclass that maps an example to a new one; it draws from `rng` only and writes to neither."""

    def __call__(self, rng: np.random.Generator, example: Example) -> Example: ...


class _Bounded:
    """A transform whose numbers of these names are checked when it is written."""

    BOUNDS = {name: (1, math.inf) for name in ("height", "width", "size", "multiple")} | {
        "pad": (0, math.inf),
        "probability": (0, 1),
    }

    def __post_init__(self) -> None:
        for name, (low, high) in self.BOUNDS.items():
            if not low <= (value := getattr(self, name, low)) <= high:
                bound = f"at least {low}" if math.isinf(high) else f"from {low} to {high}"
                raise UserError(f"{type(self).__name__}.{name} is {value}; it must be {bound}")


# --- sizes ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Resize(_Bounded):
    """Resize to height x width, in any proportions."""

    height: int
    width: int

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        return geometry.cut(example, _whole(example), self.height, self.width)


@dataclasses.dataclass(frozen=True)
class ResizeShort(_Bounded):
    """Resize in proportion, until the shorter side is `size` pixels long."""

    size: int

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        factor = self.size / min(h, w)
        return geometry.cut(example, _whole(example), round(h * factor), round(w * factor))


@dataclasses.dataclass(frozen=True)
class CenterCrop(_Bounded):
    """The middle height x width of the image, padded where it is smaller (mean colour / 255).

    A caption is dropped where a part of the image is.
    """

    height: int
    width: int

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        corner = ((h - self.height) // 2, (w - self.width) // 2)
        return geometry.window(example, (h, w), corner, self.height, self.width)


@dataclasses.dataclass(frozen=True)
class PadTo(_Bounded):
    """Pad below and to the right up to height x width (mean colour / 255). Raises UserError if an image is larger."""

    height: int
    width: int

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        if h > self.height or w > self.width:
            raise UserError(f"PadTo({self.height}, {self.width}): an image is {h}x{w}; resize or crop it before")
        return geometry.place(example, 0, 0, self.height, self.width)


@dataclasses.dataclass(frozen=True)
class PadToMultiple(_Bounded):
    """Pad below and to the right until both sides are multiples of `multiple` (mean colour / 255)."""

    multiple: int

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        height, width = (-(-side // self.multiple) * self.multiple for side in geometry.size(example))
        return geometry.place(example, 0, 0, height, width)


# --- crops ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(_Bounded):
    """A part of random area and proportions, resized to height x width (Inception, arXiv:1409.4842, section 6).

    A caption is dropped where a part of the image is.
    """

    height: int
    width: int
    scale: tuple[float, float] = (0.08, 1.0)
    """Share of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height, drawn evenly in its logarithm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise UserError(
                f"RandomResizedCrop: scale={self.scale}, ratio={self.ratio}; each goes from a smaller to a larger "
                "number above 0, and a share of the area is at most 1"
            )

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        for _ in range(10):
            area = h * w * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            ch, cw = max(1, round(math.sqrt(area / ratio))), max(1, round(math.sqrt(area * ratio)))
            if ch <= h and cw <= w:
                y, x = float(rng.integers(h - ch + 1)), float(rng.integers(w - cw + 1))
                return geometry.cut(example, (y, x, y + ch, x + cw), self.height, self.width)
        # No part of such proportions fits: the largest middle part whose proportions are allowed.
        ratio = min(max(w / h, self.ratio[0]), self.ratio[1])
        ch, cw = min(h, round(w / ratio)), min(w, round(h * ratio))
        y, x = (h - ch) / 2, (w - cw) / 2
        return geometry.cut(example, (y, x, y + ch, x + cw), self.height, self.width)


@dataclasses.dataclass(frozen=True)
class RandomScaleCrop(_Bounded):
    """Resize by a random factor, then crop height x width at random, padded where it is smaller (mean colour / 255).

    The augmentation of segmentation since DeepLab (arXiv:1606.00915). With `max_share`, a crop in which one class takes
    that share of the pixels that count is drawn again, ten times at most. A caption is dropped where a part of the
    image is.
    """

    height: int
    width: int
    low: float = 0.5
    """Least factor."""
    high: float = 2.0
    """Largest factor."""
    max_share: float = 1.0
    """Share of one class at which a crop is drawn again; 1 takes every crop, 0.75 is usual for many classes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.low <= self.high:
            raise UserError(f"RandomScaleCrop: low={self.low}, high={self.high}; factors go from low to high, above 0")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        factor = rng.uniform(self.low, self.high)
        hs, ws = max(1, round(h * factor)), max(1, round(w * factor))
        for _ in range(10):
            corner = (_offset(rng, hs, self.height), _offset(rng, ws, self.width))
            crop = geometry.window(example, (hs, ws), corner, self.height, self.width)
            if self.max_share >= 1 or "mask" not in crop or _share(crop["mask"]) < self.max_share:
                break
        return crop


@dataclasses.dataclass(frozen=True)
class PadCrop(_Bounded):
    """Pad every side by `pad` pixels, then crop height x width at random: the augmentation of CIFAR.

    A caption is dropped where a part of the image is.
    """

    height: int
    width: int
    pad: int = 4
    fill: int | None = None
    """Grey level of the padding; None for the image's mean colour."""

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        top = _offset(rng, h + 2 * self.pad, self.height) - self.pad
        left = _offset(rng, w + 2 * self.pad, self.width) - self.pad
        return geometry.window(example, (h, w), (top, left), self.height, self.width, self.fill)


# --- moves ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Flip(_Bounded):
    """Exchange left and right, and in a caption the words left and right (왼쪽 and 오른쪽); other words stay."""

    probability: float = 0.5

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        return geometry.mirror(example) if rng.random() < self.probability else example


@dataclasses.dataclass(frozen=True)
class Rotate:
    """Turn about the centre by up to `degrees` either way; outside lie the mean colour and 255. Drops a caption."""

    degrees: float = 10.0
    fill: int | None = None
    """Grey level of the padding; None for the image's mean colour."""

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        angle = rng.uniform(-self.degrees, self.degrees)
        return geometry.warp(example, _linear(angle, 1.0, 0.0), (0.0, 0.0), self.fill)


@dataclasses.dataclass(frozen=True)
class Affine:
    """Turn, scale, slant and shift about the centre; outside lie the mean colour and 255. Drops a caption."""

    degrees: float = 10.0
    """Largest turn either way."""
    scale: tuple[float, float] = (0.9, 1.1)
    shear: float = 5.0
    """Largest slant either way, in degrees."""
    shift: float = 0.1
    """Largest shift either way, as a share of each side."""
    fill: int | None = None
    """Grey level of the padding; None for the image's mean colour."""

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        turn, slant, x, y = rng.uniform(-1, 1, 4).tolist()
        matrix = _linear(turn * self.degrees, rng.uniform(*self.scale), slant * self.shear)
        return geometry.warp(example, matrix, (x * self.shift * w, y * self.shift * h), self.fill)


# --- pixels -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Photometric:
    """Change brightness, contrast, saturation and hue of the image, together one affine map of its colours.

    Colours are the first three channels, or the first of one or two; alpha and what follows stay as they are. A
    caption, which may name a colour, is dropped. Raises UserError for an image that is not in bytes.
    """

    brightness: float = 0.2
    """Factors are drawn from 1 - brightness … 1 + brightness; likewise below."""
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.02
    """Largest turn of the hue either way; 0.5 is half the circle."""

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        image = example["image"]
        if image.dtype != np.uint8:
            raise UserError(f"Photometric changes bytes; the image is {image.dtype.name}")
        image, rest = np.split(image, [3 if image.shape[2] >= 3 else 1], axis=2)
        b, c, s, t = rng.uniform(-1, 1, 4).tolist()
        gain = (1 + b * self.brightness) * (1 + c * self.contrast)
        grey = geometry.mean_colour(image).mean(dtype=np.float32) * (1 + b * self.brightness)
        matrix = chroma(1 + s * self.saturation, t * self.hue) if image.shape[2] == 3 else np.eye(image.shape[2])
        mapped = image @ (gain * matrix.T).astype(np.float32) - np.float32(c * self.contrast * grey)
        np.clip(mapped + np.float32(0.5), 0, 255, out=mapped)
        out = mapped.astype(np.uint8)
        return geometry.without_caption(example) | {
            "image": np.concatenate([out, rest], axis=2) if rest.shape[2] else out
        }


@dataclasses.dataclass(frozen=True)
class Cutout(_Bounded):
    """Paint a square of the image over with its mean colour, and of the mask with 255: what is hidden does not count.

    Its centre may lie anywhere, so that it may stick out (arXiv:1708.04552). Alpha, the last of two or four channels
    of bytes, stays as it is. A caption is dropped.
    """

    size: int

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        h, w = geometry.size(example)
        y, x = (int(rng.integers(side)) - self.size // 2 for side in (h, w))
        hole = (slice(max(0, y), max(0, y + self.size)), slice(max(0, x), max(0, x + self.size)))
        out = geometry.without_caption(example) | {"image": example["image"].copy()}
        colours = slice(geometry.colours(example["image"]))
        out["image"][*hole, colours] = geometry.mean_colour(example["image"])[colours]
        if "mask" in example:
            out["mask"] = example["mask"].copy()
            out["mask"][hole] = IGNORE
        return out


def _whole(example: Example) -> geometry.Box:
    h, w = geometry.size(example)
    return (0.0, 0.0, float(h), float(w))


def _offset(rng: np.random.Generator, side: int, window: int) -> int:
    """Where a window starts: anywhere inside a longer side, or so that a shorter side lies anywhere inside it."""
    low, high = sorted((0, side - window))
    return int(rng.integers(low, high + 1))


def _share(mask: UInt8[np.ndarray, "h w"]) -> float:
    """Share of the commonest class among the pixels that count."""
    counts = np.bincount(mask.ravel(), minlength=256)[:IGNORE]
    return float(counts.max() / max(counts.sum(), 1))


def _linear(degrees: float, scale: float, shear: float) -> Float[np.ndarray, "2 2"]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return scale * np.array([[c, -s], [s, c]]) @ np.array([[1.0, math.tan(math.radians(shear))], [0.0, 1.0]])


_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_RGB = np.linalg.inv(_YIQ)


def chroma(saturation: float, hue: float) -> Float[np.ndarray, "3 3"]:
    """The map of RGB that scales chroma and turns it by `hue` circles, in YIQ, where it is linear; greys stay."""
    c, s = saturation * math.cos(math.tau * hue), saturation * math.sin(math.tau * hue)
    return _RGB @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ _YIQ


# --- labels -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Unlabelled:
    """Drop the label, of an example or of a batch, for an unconditional generator of labelled data."""

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        return {key: value for key, value in example.items() if key != "label"}
