"""From a file or its bytes to pixels and ids, with errors that name the file."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from jaxgen.errors import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by number of channels


def read_image(file: Path | bytes, channels: int, name: str) -> UInt8[np.ndarray, "h w c"]:
    """Read an image, grey or in colour as `channels` asks. Raises UserError if it is not an 8-bit image."""
    image = _load(file, name)
    if image.mode[0] in "IF":
        raise UserError(f"{name}: {image.mode} pixels; convert the image to 8 bits per channel")
    pixels = np.asarray(image if image.mode == MODES[channels] else image.convert(MODES[channels]))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def read_ids(file: Path | bytes, name: str) -> Integer[np.ndarray, "h w"]:
    """Read a mask: the indices of a palette, or grey levels. Raises UserError if it holds colours, or is a JPEG."""
    image = _load(file, name)
    if image.mode not in ("1", "L", "P", "I", "I;16"):
        raise UserError(f"{name}: a mask in {image.mode}; a mask is a PNG of ids, with a palette or grey")
    if image.format == "JPEG":
        raise UserError(f"{name}: a JPEG does not keep ids; save masks as PNG")
    ids = np.asarray(image)
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def _load(file: Path | bytes, name: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{name}: unreadable image ({error})") from error
    return image
