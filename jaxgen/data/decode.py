"""From a file or its bytes to pixels and ids: the one reader of training, evaluation and prediction.

docs/data.md has the table of forms and meanings. Errors name the file and the fix.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageOps

from jaxgen.data import opening
from jaxgen.errors import UserError

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # by number of channels
LOSSY = frozenset({"JPEG", "MPO", "WEBP", "JPEG2000", "AVIF"})  # formats that may change ids
REDUCED = 254, 1  # the TIFF tag and its bit that mark a page as a smaller copy of another

Colour = tuple[int, int, int]


def read_image(file: Path | bytes, channels: int, name: str) -> UInt8[np.ndarray, "h w c"]:
    """Read a picture upright, at its full range, in as many channels as asked for.

    1 is grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; without an alpha channel, what is transparent lies on white.
    More are those of an array `.npy` [h w c]; the grey pages of a TIFF are channels, too, if they are as many.
    16 bits and floats in 0..1 become bytes.
    Raises UserError for a file that cannot be read, or whose pixels have no stated range.
    """
    if channels < 1:
        raise UserError(f"channels is {channels}; it must be at least 1")
    if opening.is_array(file):
        pixels = _bytes(_planes(opening.load_array(file, name), channels, name), name)
        have = pixels.shape[2]
        if have == channels:
            return pixels
        if have in MODES and channels in MODES:
            return _array(_converted(Image.fromarray(pixels[:, :, 0] if have == 1 else pixels), channels))
    else:
        with opening.opened(file, name) as image:
            pages = _pages(image)
            have = len(pages) if len(pages) > 1 else len(image.getbands())
            if channels in MODES and len(pages) == 1:
                return _array(_converted(_plain(image, name), channels))
            if len(pages) == channels:
                return _stack(image, pages, name)
        if len(pages) > 1:
            raise UserError(
                f"{name}: a TIFF of {have} pages, but channels={channels}; save the page that counts alone, or read "
                f"grey pages as channels={have}"
            )
    raise UserError(f"{name} has {have} channel{'s' if have > 1 else ''}, but channels={channels} was asked for")


def read_ids(file: Path | bytes, name: str, colours: Sequence[Colour] = ()) -> Integer[np.ndarray, "h w"]:
    """Read a mask, upright: the indices of a palette or grey levels, or with `colours` the position of each colour.

    Raises UserError if it is in a format that changes ids, holds colours and none were named, or others than those.
    """
    if opening.is_array(file):
        ids = opening.load_array(file, name)
        ids = ids[:, :, 0] if ids.ndim == 3 and ids.shape[2] == 1 else ids
        if ids.ndim != 2 or ids.dtype.kind not in "bui":
            raise UserError(f"{name}: a mask is an array of integers [h w], found {_form(ids)}")
        return ids.astype(np.uint8) if ids.dtype == bool else ids
    with opening.opened(file, name) as image:
        if image.format in LOSSY:
            raise UserError(f"{name}: a {image.format} does not keep ids; save masks as PNG")
        if len(pages := _pages(image)) > 1:
            raise UserError(f"{name}: a TIFF of {len(pages)} pages; a mask has one")
        if colours:
            return _positions(_array(_plain(image, name).convert("RGB")), colours, name)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16"):
            ids = np.asarray(image)
            return ids.astype(np.uint8) if ids.dtype == bool else ids.astype(ids.dtype.newbyteorder("="), copy=False)
        return _grey_ids(image, name)


def turned(file: Path | bytes, name: str) -> bool:
    """Return whether an orientation in the file's EXIF exchanges the picture's height and width."""
    if opening.is_array(file):
        return False
    with opening.opened(file, name) as image:
        return image.getexif().get(0x0112, 1) >= 5


def _pages(image: Image.Image) -> list[int]:
    """The pages of a TIFF that are not smaller copies of others; of other formats, whose frames are a film, the first.

    Leaves the image at the first of them.
    """
    count = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    tag, bit = REDUCED
    pages = []
    for page in range(count):
        image.seek(page)
        tags: Any = getattr(image, "tag_v2", {})
        if not tags.get(tag, 0) & bit:
            pages.append(page)
    if count > 1:
        image.seek((pages or [0])[0])
    return pages or [0]


def _stack(image: Image.Image, pages: list[int], name: str) -> UInt8[np.ndarray, "h w c"]:
    """The pages of a TIFF as channels."""
    planes: list[np.ndarray] = []
    for page in pages:
        image.seek(page)
        plane = _plain(image, f"{name}, page {page + 1}")
        if plane.mode != "L" or (planes and planes[0].shape != (plane.height, plane.width)):
            raise UserError(f"{name}: page {page + 1} of {len(pages)} is not a grey picture of the first one's size")
        planes.append(np.asarray(plane))
    return np.stack(planes, axis=2)


def _plain(image: Image.Image, name: str) -> Image.Image:
    """The picture upright, in L, LA, RGB or RGBA: all of its range, and its transparency as an alpha channel."""
    ImageOps.exif_transpose(image, in_place=True)  # not a copy, which would have forgotten its format
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        # Pillow reads grey of 16 bits in these formats as I; elsewhere I is 32 bits, whose range nothing tells.
        deep = mode == "I" and image.format in ("PNG", "PPM")
        values = np.asarray(image)
        grey = Image.fromarray(_bytes(values.clip(0, 65535).astype(np.uint16) if deep else values, name))
        hidden = image.info.get("transparency")
        if isinstance(hidden, int):
            grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
        return grey
    if mode in ("LA", "RGBA"):
        return image
    if image.has_transparency_data:
        return image.convert("LA" if mode in ("1", "L", "La") else "RGBA")
    if mode in ("L", "RGB"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def _converted(image: Image.Image, channels: int) -> Image.Image:
    """The picture in as many channels; what is transparent is laid on white where no alpha channel is asked for."""
    mode = MODES[channels]
    if image.mode in ("LA", "RGBA") and channels in (1, 3):
        colours = image.convert("L" if image.mode == "LA" else "RGB")
        paper = Image.new(colours.mode, image.size, "white")
        paper.paste(colours, mask=image.getchannel("A"))
        image = paper
    return image if image.mode == mode else image.convert(mode)


def _array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _planes(array: np.ndarray, channels: int, name: str) -> np.ndarray:
    """An array as [h w c]."""
    array = array[:, :, None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape:
        raise UserError(f"{name}: {_form(array)}; a picture is an array [h w] or [h w c]")
    if array.shape[2] != channels and array.shape[0] == channels:
        raise UserError(f"{name}: {_form(array)}; channels come last: save numpy.moveaxis(array, 0, -1)")
    return array


def _bytes(values: np.ndarray, name: str) -> UInt8[np.ndarray, "..."]:
    """Bytes as they are, 16 bits divided by 257, floats in 0..1 times 255; all of them rounded."""
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if (kind, size) == ("u", 1):
        return values
    if (kind, size) == ("u", 2):
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if kind != "f":
        raise UserError(
            f"{name}: {values.dtype.name} pixels, whose range nothing tells; save 8 or 16 bits, or floats in 0..1"
        )
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:  # NaN too
        raise UserError(
            f"{name}: float pixels from {low:g} to {high:g}; floats are read in 0..1: divide them by their full range"
        )
    return np.round(values * 255).astype(np.uint8)


def _grey_ids(image: Image.Image, name: str) -> UInt8[np.ndarray, "h w"]:
    """The ids of a mask that a program wrote in RGB although it is grey."""
    if image.mode not in ("LA", "RGB", "RGBA"):
        raise UserError(f"{name}: a mask in {image.mode}; a mask is a PNG of ids, with a palette or grey")
    rgba = np.asarray(image.convert("RGBA"))
    if (rgba[..., 3] != 255).any() or (rgba[..., :3] != rgba[..., :1]).any():
        found, counts = _colours_of(rgba[..., :3])
        raise UserError(
            f"{name}: a mask in {image.mode}, of {len(found)} colours ({_counted(found, counts)}); a mask is a PNG "
            "of ids, with a palette or grey: or say which colour is which class by colours=((r, g, b), …)"
        )
    return rgba[..., 0]


def _positions(rgb: UInt8[np.ndarray, "h w 3"], colours: Sequence[Colour], name: str) -> UInt8[np.ndarray, "h w"]:
    """The position of each pixel's colour among `colours`."""
    table = _packed(np.array(colours, np.uint8))
    order = np.argsort(table, kind="stable")
    packed = _packed(rgb)
    place = np.searchsorted(table[order], packed).clip(max=len(table) - 1)
    known = table[order][place] == packed
    if not known.all():
        found, counts = _colours_of(rgb[~known])
        raise UserError(
            f"{name}: {(~known).sum():,} pixels of {len(found)} colours that no class has ({_counted(found, counts)}); "
            "add them to `colours`, or draw the mask without soft edges and resize it by nearest neighbour"
        )
    return order.astype(np.uint8)[place]


def _packed(rgb: UInt8[np.ndarray, "*s 3"]) -> Integer[np.ndarray, "*s"]:
    return rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


def _colours_of(rgb: UInt8[np.ndarray, "*s 3"]) -> tuple[list[Colour], list[int]]:
    """The colours, the commonest first, and how many pixels each has."""
    packed, counts = np.unique(_packed(rgb), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(c) >> 16, int(c) >> 8 & 255, int(c) & 255) for c in packed[order]], counts[order].tolist()


def _counted(colours: list[Colour], counts: list[int], most: int = 3) -> str:
    shown = ", ".join(f"{colour} {count}×" for colour, count in zip(colours[:most], counts, strict=False))
    return shown + (", …" if len(colours) > most else "")


def _form(array: np.ndarray) -> str:
    return f"{array.dtype.name}[{' '.join(map(str, array.shape))}]"
