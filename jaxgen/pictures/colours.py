"""Colours for class ids, the same in every picture."""

import colorsys
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Integer, UInt8

from jaxgen.typing import IGNORE

Array = jax.Array | np.ndarray


def palette(classes: int) -> UInt8[np.ndarray, "n 3"]:
    """Return one colour for each class: id 0 is black, neighbours lie far apart in hue and differ in lightness."""
    golden = (5**0.5 - 1) / 2  # steps of the golden ratio never crowd the circle of hues, however many there are
    colours = [(0.0, 0.0, 0.0)]
    for i in range(classes - 1):
        value, saturation = ((1.0, 0.85), (0.8, 0.6), (0.95, 0.5))[i % 3]
        colours.append(colorsys.hsv_to_rgb(i * golden % 1.0, saturation, value))
    return (np.array(colours[:classes]).reshape(-1, 3) * 255).round().astype(np.uint8)


def tint(image: Float[Array, "*b h w 3"], mask: Integer[Array, "*b h w"], classes: int) -> Float[Array, "*b h w 3"]:
    """Colour the grey of images in [-1, 1] by class, as numpy or JAX arrays.

    Class 0 and ids of no class keep their colours and are darkened; pixels of id 255 = ignore turn white.
    """
    xp: Any = image.__array_namespace__()  # numpy's or JAX's functions
    ids = xp.asarray(mask, dtype=np.int32)[..., None]
    colours = xp.asarray(palette(classes), dtype=np.float32) / 127.5 - 1
    mixed = 0.2 * image.mean(-1, keepdims=True) + 0.8 * colours[xp.clip(ids[..., 0], 0, classes - 1)]
    mixed = xp.where((ids > 0) & (ids < classes), mixed, 0.5 * (image - 1))
    return xp.where(ids == IGNORE, 1.0, mixed).astype(image.dtype)
