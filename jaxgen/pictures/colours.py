"""Colours for class ids, the same in every picture."""

import colorsys

import numpy as np
from jaxtyping import UInt8


def palette(classes: int) -> UInt8[np.ndarray, "n 3"]:
    """Return one colour for each class: id 0 is black, neighbours lie far apart in hue and differ in lightness."""
    golden = (5**0.5 - 1) / 2  # steps of the golden ratio never crowd the circle of hues, however many there are
    colours = [(0.0, 0.0, 0.0)]
    for i in range(classes - 1):
        value, saturation = ((1.0, 0.85), (0.8, 0.6), (0.95, 0.5))[i % 3]
        colours.append(colorsys.hsv_to_rgb(i * golden % 1.0, saturation, value))
    return (np.array(colours[:classes]) * 255).round().astype(np.uint8)
