"""JPEG: what it leaves of a picture, and by which steps a file's coefficients were rounded."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from jaxgen.data import opening
from jaxgen.errors import UserError

ORIENTATION = 0x0112  # of EXIF


def through_jpeg(pixels: UInt8[np.ndarray, "h w c"], quality: int) -> UInt8[np.ndarray, "h w c"]:
    """Return what is decoded of a picture of 1 or 3 channels, of a quality in 1..100 and with chroma 4:2:0."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        file, "JPEG", quality=quality, subsampling="4:2:0"
    )
    with Image.open(file) as image:
        return np.asarray(image).reshape(pixels.shape)


@dataclasses.dataclass(frozen=True)
class Tables:
    """Steps of a file, in levels of 8 bits; frequencies rise downwards and to the right."""

    luma: Float32[np.ndarray, "8 8"]
    chroma: Float32[np.ndarray, "8 8"] | None
    """None for grey pictures."""
    halved: bool
    """Whether chroma's sides are half as long: 4:2:0, or else 4:4:4."""


def jpeg_tables(file: Path, name: str) -> Tables | None:
    """Return a file's tables, or None for one that is no JPEG.

    Raises UserError for a JPEG of another kind: turned by EXIF, of colours other than YCbCr, 4:2:2 and the like.
    """
    if opening.is_array(file):
        return None
    with opening.opened(file, name) as image:
        if image.format not in ("JPEG", "MPO"):
            return None
        if image.getexif().get(ORIENTATION, 1) != 1:
            raise UserError(f"{name} is turned by EXIF, and its blocks are not; turn it for good first (jpegtran)")
        opened: Any = image
        parts, found = opened.layer, opened.quantization
        tables = [np.asarray(found[part[3]], np.float32).reshape(8, 8) for part in parts]
        if len(parts) == 1:
            return Tables(luma=tables[0], chroma=None, halved=False)
        if image.mode != "RGB" or image.info.get("adobe_transform", 1) != 1 or len(parts) != 3:
            raise UserError(f"{name} is a JPEG in {image.mode} without luma and chroma; save it as PNG, with --quality")
        factors = [tuple(part[1:3]) for part in parts]
        if factors[1:] != [(1, 1)] * 2 or factors[0] not in ((1, 1), (2, 2)) or (tables[1] != tables[2]).any():
            ratio = "×".join(map(str, factors[0]))
            raise UserError(f"{name} is a JPEG whose chroma is coarser by {ratio}; 4:4:4 and 4:2:0 can be restored")
        return Tables(luma=tables[0], chroma=tables[1], halved=factors[0] == (2, 2))
