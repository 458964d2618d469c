"""Holes for pictures, drawn from a seed: a box, single pixels, or strokes."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw

Holes = Bool[np.ndarray, "h w"]
Size = tuple[int, int]  # height and width


def box(rng: np.random.Generator, size: Size) -> Holes:
    """Return a hole of half the height and half the width, anywhere."""
    holes = np.zeros(size, bool)
    top, left = (int(rng.integers(side - -(-side // 2) + 1)) for side in size)
    holes[top : top + -(-size[0] // 2), left : left + -(-size[1] // 2)] = True
    return holes


def pixels(rng: np.random.Generator, size: Size) -> Holes:
    """Return half of all pixels, each by chance."""
    return rng.random(size) < 0.5


def strokes(rng: np.random.Generator, size: Size) -> Holes:
    """Return strokes of a brush, as many as cover a quarter of the picture."""
    picture = Image.new("L", size[::-1])
    pen, short = ImageDraw.Draw(picture), min(size)
    while (np.asarray(picture) > 0).mean() < 0.25:
        width = max(1, round(short * rng.uniform(0.03, 0.1)))
        pen.line(wandering(rng, size, step=(short / 20, short / 7)), fill=255, width=width, joint="curve")
    return np.asarray(picture) > 0


def wandering(rng: np.random.Generator, size: Size, step: tuple[float, float]) -> list[tuple[float, float]]:
    """Return 5 to 12 points (x, y) of a line that wanders from anywhere in a picture; a step's length has a range."""
    height, width = size
    steps = int(rng.integers(4, 12))
    at, angle = rng.uniform((0, 0), (width, height)), rng.uniform(0, 2 * math.pi)
    line = [(float(at[0]), float(at[1]))]
    for _ in range(steps):
        angle += rng.normal(scale=0.25)
        at = at + rng.uniform(*step) * np.array([math.cos(angle), math.sin(angle)])
        line.append((float(at[0]), float(at[1])))
    return line


MASKS: dict[str, Callable[[np.random.Generator, Size], Holes]] = {"box": box, "random": pixels, "strokes": strokes}
