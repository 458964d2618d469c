"""Pictures for people: panels laid out on a sheet, with titles, captions and legends."""

import dataclasses
import io
import math
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from jaxgen.data.source import Source, portrayed
from jaxgen.errors import UserError
from jaxgen.pictures import text
from jaxgen.pictures.colours import palette, tint
from jaxgen.pictures.panels import Curves, Panels, Picture
from jaxgen.pictures.pixels import levels, reach_of, scatter

PAPER, INK, RIGHT, WRONG = (255, 255, 255), (40, 40, 40), (24, 120, 60), (200, 40, 40)
GAP, LEAST = 6, 96  # pixels between images; smaller images are enlarged to at least this size
LINE = 16  # pixels of a line below an image
LINES = 4  # most lines of a text below an image
MOST = 4 * LEAST  # the longer side of an image that is enlarged
SHOWN, PIXELS = 400, 50_000_000  # most samples on a sheet, and most pixels of theirs
PLANE = 480  # pixels along each side of a picture of points
# What Pillow writes under each suffix, without asking what the picture is.
FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
LIMITS = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}  # most pixels along a side


def sheet(panels: Panels, classes: tuple[str, ...], words: Sequence[str] = ()) -> UInt8[np.ndarray, "H W 3"]:
    """Lay panels out on white paper: rows below their titles, columns too, class names and scales below the images.

    `words` stand below the images instead, one text for each or "", wrapped.
    """
    images = np.asarray(panels.images)
    n, m, h, w, _ = images.shape
    wide = 0 if panels.frame is None else max(1, h // 8)
    h, w = h + 2 * wide, w + 2 * wide
    zoom = max(1, min(-(-LEAST // min(h, w)), MOST // max(h, w)))
    h, w = h * zoom, w * zoom
    head = 20 if panels.titles else 0
    first = 20 if panels.columns else 0
    captions = _lines(words, m, w) if words else _captions(panels, classes, w)
    foot = LINE * max((len(lines) for lines in captions.values()), default=0) + (2 if captions else 0)
    page = Image.new("RGB", (GAP + m * (w + GAP), GAP + first + n * (head + h + foot + GAP)), PAPER)
    draw = ImageDraw.Draw(page)
    for j, name in enumerate(panels.columns):
        text.write(draw, (GAP + j * (w + GAP), GAP), text.shortened(name, 13, w), INK, 13)
    for i in range(n):
        top = GAP + first + i * (head + h + foot + GAP)
        if panels.titles:
            text.write(draw, (GAP, top), panels.titles[i], INK, 13)
        for j in range(m):
            x, y = GAP + j * (w + GAP), top + head
            pixels = to_rgb(images[i, j])
            if panels.frame is not None:
                pixels = _framed(pixels, np.asarray(panels.frame)[i, j], wide)
            page.paste(Image.fromarray(pixels).resize((w, h), Image.Resampling.NEAREST), (x, y))
            if panels.reach is not None:
                draw.rectangle((x - 1, y - 1, x + w, y + h), outline=INK)
            right = panels.truth is not None and panels.guess[i, j] == panels.truth[i, j]
            colour = INK if panels.truth is None else RIGHT if right else WRONG
            for number, line in enumerate(captions.get((i, j), ())):
                text.write(draw, (x, y + h + 1 + LINE * number), text.shortened(line, 13, w), colour, 13)
    return np.asarray(page)


def _framed(pixels: UInt8[np.ndarray, "h w 3"], colour: np.ndarray, wide: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Lay `wide` pixels of a colour f32[3] in [-1, 1] around an image."""
    h, w, _ = pixels.shape
    out = np.broadcast_to(to_bytes(colour.reshape(1, 1, 3)), (h + 2 * wide, w + 2 * wide, 3)).copy()
    out[wide : wide + h, wide : wide + w] = pixels
    return out


def _captions(panels: Panels, classes: tuple[str, ...], width: int) -> dict[tuple[int, int], list[str]]:
    """Return what is written below each image: its scale, or classes.

    Classes take two lines where one of all is too short for "this, not that".
    """
    if panels.reach is not None:
        return {place: [_scale("x and y", float(reach))] for place, reach in np.ndenumerate(np.asarray(panels.reach))}
    if panels.guess is None:
        return {}
    found = {}
    for place, guess in np.ndenumerate(np.asarray(panels.guess)):
        truth = guess if panels.truth is None else panels.truth[place]
        if guess >= 0:
            found[place] = [text.shown(classes[k], int(k)) for k in ((guess,) if guess == truth else (guess, truth))]
    lines = {place: [", not ".join(names)] for place, names in found.items()}
    if max((text.length(one, 13) for (one,) in lines.values()), default=0) > width:
        lines = {place: [names[0], *(f"not {name}" for name in names[1:])] for place, names in found.items()}
    return lines


def _lines(words: Sequence[str], columns: int, width: int) -> dict[tuple[int, int], list[str]]:
    """Return the lines of each image's text, of as many images as are in a row."""
    lines = [text.wrapped(each, 13, width, LINES) for each in text.legible(words)]
    return {divmod(i, columns): each for i, each in enumerate(lines)}


def samples(
    images: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    columns: int | None = None,
    words: Sequence[str] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay samples out in rows, nearly square by default, with their classes below; of points, draw where they lie.

    `images` is f32[n h w c] in [-1, 1], u8[n h w c] or points f32[n d], `labels` i32[n]; `words` are n texts that stand
    below the images instead of classes.
    """
    if images.ndim == 2:
        return points(images)
    count = len(images)
    if columns is None:
        columns = min(count, 10 if labels is not None and not words else int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    blank = np.full((rows * columns - count, *images.shape[1:]), 255 if images.dtype == np.uint8 else 1, images.dtype)
    filled = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    if labels is None or words:
        return sheet(Panels(images=filled), (), words)
    named = np.concatenate([labels, np.full(len(blank), -1, np.int32)]).reshape(rows, columns)
    return sheet(Panels(images=filled, guess=named), tuple(classes))


def points(found: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    """Draw where points f32[n d] lie by their first two numbers, in a frame, with its scale beneath."""
    reach = float(reach_of(jnp.asarray(found)))
    page = Image.new("RGB", (PLANE + 2, PLANE + 22), PAPER)
    page.paste(Image.fromarray(to_rgb(np.asarray(scatter(jnp.asarray(found), PLANE, reach)))), (1, 1))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, PLANE + 1, PLANE + 1), outline=INK)
    which = "x and y" if found.shape[1] == 2 else "x" if found.shape[1] == 1 else "the first two numbers"
    text.write(draw, (GAP, PLANE + 4), _scale(which, reach), INK, 13)
    return np.asarray(page)


def _scale(which: str, reach: float) -> str:
    return f"{which} from {-reach:.3g} to {reach:.3g}"


def most(count: int, height: int, width: int) -> int:
    """Return how many of so many samples of this size a sheet shows."""
    return min(count, SHOWN, max(1, PIXELS // (height * width)))


def chart(curves: Curves) -> UInt8[np.ndarray, "H W 3"]:
    """Draw lines over an x axis that is logarithmic where values of x are positive."""
    import matplotlib.figure  # takes half a second, and a command that draws nothing need not wait
    import matplotlib.ticker

    figure = matplotlib.figure.Figure(figsize=(5, 3), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for y, label in zip(np.asarray(curves.y), curves.labels, strict=True):
        axes.plot(np.asarray(curves.x), y, "o-", label=label)
    scale = "log" if (np.asarray(curves.x) > 0).any() else "linear"
    axes.set(xscale=scale, xlabel=curves.axes[0], ylabel=curves.axes[1], ylim=(0, None))
    if scale == "log":  # the default writes powers of ten one over the other where the axis is short
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1.0, 2.0, 5.0) if high < 100 * low else (1.0,)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def draw(picture: Picture, classes: tuple[str, ...], source: Source | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Draw what a preview shows of data from a source, examples in its own way where it has one."""
    if isinstance(picture, Curves):
        return chart(picture)
    images = np.asarray(picture.images)
    n, m, *shape = images.shape
    if source is not None and (own := portrayed(source, tuple(shape))) is not None:
        drawn = own.picture(images.reshape(-1, *shape))
        picture = dataclasses.replace(picture, images=drawn.reshape(n, m, *drawn.shape[1:]))
    return sheet(picture, classes)


def legend(classes: tuple[str, ...], ids: list[int]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a colour and a name for each of these class ids."""
    colours = palette(len(classes))
    names = [text.shown(classes[i], i) for i in ids]
    wide = max((text.length(name, 14) for name in names), default=0)
    page = Image.new("RGB", (wide + 44, 8 + 24 * len(ids)), PAPER)
    draw = ImageDraw.Draw(page)
    for row, (i, name) in enumerate(zip(ids, names, strict=True)):
        draw.rectangle((8, 8 + 24 * row, 26, 24 + 24 * row), tuple(colours[i].tolist()), INK)
        text.write(draw, (36, 7 + 24 * row), name, INK, 14)
    return np.asarray(page)


def overlay(image: UInt8[np.ndarray, "h w 3"], mask: np.ndarray, classes: int) -> UInt8[np.ndarray, "h w 3"]:
    """Colour an image by class: class 0 is darkened, pixels of id 255 = ignore turn white."""
    return to_rgb(np.asarray(tint(image.astype(np.float32) / 127.5 - 1, mask, classes)))


def to_rgb(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Turn channels in [-1, 1], or bytes, into RGB bytes: the first one, or the first three; what is not finite is red.

    The second of two channels, and the fourth of four, is alpha; see `on_white`.
    """
    three = np.repeat(image[..., :1], 3, axis=-1) if image.shape[-1] < 3 else image[..., :3]
    return np.ascontiguousarray(to_bytes(three))


def to_bytes(image: np.ndarray) -> UInt8[np.ndarray, "*b h w c"]:
    """Turn values in [-1, 1] into bytes; bytes are returned as they are, and pixels that are not finite turn red."""
    if image.dtype == np.uint8:
        return image
    broken = ~np.isfinite(image).all(-1)
    pixels = levels(np.where(broken[..., None], 0, image)).astype(np.uint8)
    if broken.any():
        pixels[broken] = (*WRONG, 255)[: image.shape[-1]] if image.shape[-1] <= 4 else 0
    return pixels


def on_white(pixels: UInt8[np.ndarray, "*b h w c"]) -> UInt8[np.ndarray, "*b h w d"]:
    """Lay bytes with alpha, their last channel, on white paper; the others are left."""
    alpha = pixels[..., -1:].astype(np.float32) / 255
    return np.round(pixels[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def save(path: pathlib.Path, pixels: np.ndarray) -> None:
    """Write bytes [h w], or [h w c] of one to four channels, in the format that the suffix names.

    Raises UserError where the picture is larger than the format allows.
    """
    kind = FORMATS[path.suffix.lower()]
    if max(pixels.shape[:2]) > (limit := LIMITS.get(kind, math.inf)):
        height, width = pixels.shape[:2]
        raise UserError(f"cannot write {path}: {width}×{height} pixels are more than {limit}; name it .png instead")
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if kind in ("JPEG", "BMP", "GIF") and pixels.ndim == 3 and pixels.shape[-1] in (2, 4):  # they have no alpha
        pixels = on_white(pixels)
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    Image.fromarray(pixels).save(path, format=kind, **options.get(kind, {}))


def save_png(path: pathlib.Path, pixels: np.ndarray) -> None:
    """Write RGB or grey bytes as PNG."""
    Image.fromarray(pixels).save(path, format="PNG")
