"""Scenes: real handwritten digits on crops of real photographs, drawn so that mask, boxes and caption are exactly true.

A scene is a function of (material, random generator): no two digits' boxes touch, every colour stands out from what
lies beneath it, and what the caption says of two digits is true of their boxes. Digits and photographs come with
scikit-learn (the digits: E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, doi:10.24432/C50P49).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageFilter

Box = tuple[int, int, int, int]  # x0 y0 x1 y1 in pixels
Ground = Literal["photograph", "plain"]

SIDE = 64  # pixels, height and width of a scene
SCALES = (2.0, 3.0)  # of the 8x8 scan
DEGREES = 15.0  # rotation either way
PATCH = 32  # pixels; a digit at the largest scale and rotation fits inside
CROPS = (64.0, 128.0)  # pixels, side of the crop of a photograph
MARGIN = 2  # pixels, least distance of two boxes, and of a box from the border
CONTRAST = 0.25  # least OKLab distance of a digit's colour from what lies beneath it

COLOURS = {
    "red": (235, 40, 50),
    "orange": (255, 140, 0),
    "yellow": (255, 225, 40),
    "green": (60, 200, 70),
    "blue": (50, 110, 255),
    "purple": (160, 70, 225),
    "pink": (255, 135, 190),
    "white": (250, 250, 250),
}

# Columns of the photographs. Training and test never share a pixel, yet both hold sky, roof, leaf and petal.
COLUMNS = {"train": ((0, 300), (440, 640)), "test": ((300, 440),)}

_INK = np.clip((np.arange(256) / 255 - 0.25) / 0.35, 0, 1)
STROKE = np.round(255 * _INK * _INK * (3 - 2 * _INK)).astype(np.uint8)  # blurred ink -> a stroke, its edge a pixel wide
INSIDE = 128  # a pixel belongs to the digit where at least half of it is ink


@dataclasses.dataclass(frozen=True)
class Material:
    """What the scenes of one split are made of."""

    scans: tuple[Image.Image, ...]  # 12x12: the 8x8 scans with room around them for the ink to fade
    digits: tuple[int, ...]
    photographs: tuple[Image.Image, ...]


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image and what is true of it."""

    image: Image.Image  # 64x64, RGB
    mask: Image.Image  # 64x64, L: 0 = background, d + 1 = digit d
    boxes: Float[np.ndarray, "k 4"]  # x0 y0 x1 y1 in pixels: the edges of each digit's mask
    labels: Int[np.ndarray, " k"]  # the ids that the mask uses
    caption: str


@functools.cache
def digits(split: str) -> tuple[UInt8[np.ndarray, "n 8 8"], Int[np.ndarray, " n"]]:
    """Return (scans, digits) of "train" (1,437) or "test" (360): every fifth of each class, in an order drawn once."""
    from sklearn.datasets import load_digits  # a second of import that only a preparation pays

    ink, labels = load_digits(return_X_y=True)  # f64[n 64] in 0..16
    order = np.lexsort((np.random.default_rng(0).random(len(labels)), labels))
    held_out = np.arange(len(order)) % 5 == 0
    chosen = np.sort(order[{"train": ~held_out, "test": held_out}[split]])
    return np.round(ink[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8), labels[chosen]


@functools.cache
def material(split: str) -> Material:
    """Return the digits of the split and its columns of the two photographs."""
    from sklearn.datasets import load_sample_image

    scans, labels = digits(split)
    photographs = (load_sample_image(f"{name}.jpg") for name in ("china", "flower"))
    return Material(
        scans=tuple(Image.fromarray(np.pad(scan, 2)) for scan in scans),
        digits=tuple(int(label) for label in labels),
        photographs=tuple(Image.fromarray(p[:, left:right]) for p in photographs for left, right in COLUMNS[split]),
    )


def scenes(split: str, count: int) -> Iterator[Scene]:
    """Yield the scenes 0 … count-1 of a split: scene i is a function of (split, i) only."""
    stream = list(COLUMNS).index(split)
    for i in range(count):
        yield draw(material(split), np.random.default_rng((stream, i)))


def draw(material: Material, rng: np.random.Generator, ground: Ground = "photograph", most: int = 5) -> Scene:
    """Draw one scene with 2 to `most` digits."""
    image = GROUNDS[ground](material, rng)
    chosen, strokes, boxes = _arrangement(material, rng, most)
    names = _colours(image, boxes, rng)

    ink = np.zeros((SIDE, SIDE), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for k, stroke, (x0, y0, x1, y1) in zip(chosen, strokes, boxes, strict=True):
        ink[y0:y1, x0:x1] = stroke
        mask[y0:y1, x0:x1][stroke >= INSIDE] = material.digits[k] + 1
    # A soft shadow, one pixel down and to the right, lifts the digits off a busy photograph.
    shadow = Image.fromarray(ink // 2).filter(ImageFilter.GaussianBlur(1.5))
    image.paste((0, 0, 0), (1, 1), shadow.crop((0, 0, SIDE - 1, SIDE - 1)))
    paints = np.clip([COLOURS[name] for name in names] + rng.integers(-12, 13, (len(names), 3)), 0, 255).tolist()
    for paint, stroke, box in zip(paints, strokes, boxes, strict=True):
        image.paste(tuple(paint), box, Image.fromarray(stroke))

    shown = [material.digits[k] for k in chosen]
    labels = np.array(shown, np.int32) + np.int32(1)
    return Scene(image, Image.fromarray(mask), np.array(boxes, np.float32), labels, caption(names, shown, boxes))


def caption(names: list[str], digits: list[int], boxes: list[Box]) -> str:
    """Say what is there, from left to right: "a red 3 left of a blue 7, which is above a green 1".

    Each relation holds between the boxes themselves, along the axis on which they lie farther apart.
    """
    order = sorted(range(len(boxes)), key=lambda k: boxes[k][0] + boxes[k][2])
    nouns = [f"{'an' if names[k][0] in 'aeiou' else 'a'} {names[k]} {digits[k]}" for k in order]
    relations = [relation(boxes[a], boxes[b]) for a, b in itertools.pairwise(order)]
    clauses = [f"{said} {noun}" for said, noun in zip(relations, nouns[1:], strict=True)]
    return f"{nouns[0]} " + ", which is ".join(clauses)


def relation(a: Box, b: Box) -> str:
    """Return how box a lies to box b, along the axis on which they lie farther apart: "left of", "above", …"""
    gaps = {"left of": b[0] - a[2], "right of": a[0] - b[2], "above": b[1] - a[3], "below": a[1] - b[3]}
    return max(gaps, key=lambda name: gaps[name])


def _background(material: Material, rng: np.random.Generator) -> Image.Image:
    """A square crop of a photograph, perhaps mirrored, a little darker than it was."""
    photograph = material.photographs[rng.integers(len(material.photographs))]
    side = rng.uniform(*CROPS)
    x, y = rng.uniform(0, photograph.width - side), rng.uniform(0, photograph.height - side)
    crop = photograph.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Image.blend(Image.new("RGB", crop.size), crop, rng.uniform(0.7, 1.0))


def _plain(material: Material, rng: np.random.Generator) -> Image.Image:
    """One dark or pale grey."""
    del material
    low, high = ((20, 70), (190, 230))[rng.integers(2)]
    grey = int(rng.integers(low, high))
    return Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))


GROUNDS = {"photograph": _background, "plain": _plain}


def _arrangement(
    material: Material, rng: np.random.Generator, most: int
) -> tuple[list[int], list[UInt8[np.ndarray, "_ _"]], list[Box]]:
    """Draw digits and find room for them: (indices, ink inside each box, boxes). Smaller after each failed attempt."""
    count = int(rng.integers(2, most + 1))
    largest = SCALES[1]
    while True:
        chosen = rng.integers(len(material.digits), size=count).tolist()
        strokes = [_stroke(material.scans[k], rng.uniform(SCALES[0], largest), rng) for k in chosen]
        boxes = _pack([stroke.shape for stroke in strokes], rng)
        if len(boxes) == count:
            return chosen, strokes, boxes
        largest = SCALES[0] + 0.8 * (largest - SCALES[0])


def _stroke(scan: Image.Image, scale: float, rng: np.random.Generator) -> UInt8[np.ndarray, "_ _"]:
    """Scale and rotate a scan, sharpen it to a stroke, and cut it to the box of its mask."""
    angle = math.radians(rng.uniform(-DEGREES, DEGREES))
    c, s = math.cos(angle) / scale, math.sin(angle) / scale
    half, centre = PATCH / 2, scan.width / 2
    inverse = (c, s, centre - (c + s) * half, -s, c, centre - (c - s) * half)
    patch = scan.transform((PATCH, PATCH), Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC)
    ink = STROKE[np.asarray(patch)]
    inside = ink >= INSIDE
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _pack(sizes: list[tuple[int, int]], rng: np.random.Generator) -> list[Box]:
    """Boxes of these (height, width) that keep their distance; fewer where 50 random places all fail."""
    boxes: list[Box] = []
    for (height, width), tries in zip(sizes, rng.random((len(sizes), 50, 2)).tolist(), strict=True):
        for u, v in tries:
            x0 = MARGIN + int(u * (SIDE - 2 * MARGIN - width + 1))
            y0 = MARGIN + int(v * (SIDE - 2 * MARGIN - height + 1))
            box = (x0, y0, x0 + width, y0 + height)
            if all(max(box[0] - b[2], b[0] - box[2], box[1] - b[3], b[1] - box[3]) >= MARGIN for b in boxes):
                boxes.append(box)
                break
        else:
            break
    return boxes


def _colours(image: Image.Image, boxes: list[Box], rng: np.random.Generator) -> list[str]:
    """Draw for each box a colour that stands out from the image there; no two boxes share one if there are enough.

    There is always one: yellow and blue lie more than twice CONTRAST apart, so no image is close to both.
    """
    pixels = np.asarray(image)
    beneath = np.stack([pixels[y0:y1, x0:x1].reshape(-1, 3).mean(0) for x0, y0, x1, y1 in boxes])
    distances = np.linalg.norm(oklab(beneath)[:, None] - tones(), axis=2)
    names: list[str] = []
    for distance in distances:
        fit = [name for name, d in zip(COLOURS, distance, strict=True) if d > CONTRAST]
        fresh = [name for name in fit if name not in names]
        names.append((fresh or fit)[rng.integers(len(fresh or fit))])
    return names


@functools.cache
def tones() -> Float[np.ndarray, "1 n 3"]:
    """Return COLOURS in OKLab."""
    return oklab(np.array(list(COLOURS.values()), float))[None]


_LMS = [
    [0.4122214708, 0.2119034982, 0.0883024619],
    [0.5363325363, 0.6806995451, 0.2817188376],
    [0.0514459929, 0.1073969566, 0.6299787005],
]
_LAB = [
    [0.2104542553, 1.9779984951, 0.0259040371],
    [0.7936177850, -2.4285922050, 0.7827717662],
    [-0.0040720468, 0.4505937099, -0.8086757660],
]


def oklab(rgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Map sRGB in [0, 255] to OKLab, where distance is what the eye sees (B. Ottosson, 2020, bottosson.github.io)."""
    x = rgb / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.array(_LMS)) @ np.array(_LAB)
