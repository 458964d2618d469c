"""Pictures for people: panels laid out on a sheet, with titles, captions and legends."""

import io
import pathlib

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxgen.pictures.colours import palette
from jaxgen.pictures.panels import Curves, Panels, Picture

PAPER, INK, RIGHT, WRONG = (255, 255, 255), (40, 40, 40), (24, 120, 60), (200, 40, 40)
GAP, LEAST = 6, 96  # pixels between pictures; smaller pictures are enlarged to at least this size


def sheet(panels: Panels, classes: tuple[str, ...]) -> UInt8[np.ndarray, "H W 3"]:
    """Lay panels out on white paper, each row beneath its title, class names beneath the pictures."""
    images = np.asarray(panels.images)
    n, m, h, w, _ = images.shape
    zoom = max(1, -(-LEAST // min(h, w)))
    h, w = h * zoom, w * zoom
    font = ImageFont.load_default(13)
    head = 20 if panels.titles else 0
    foot = 0 if panels.guess is None else 18
    page = Image.new("RGB", (GAP + m * (w + GAP), GAP + n * (head + h + foot + GAP)), PAPER)
    draw = ImageDraw.Draw(page)
    for i in range(n):
        top = GAP + i * (head + h + foot + GAP)
        if panels.titles:
            draw.text((GAP, top), panels.titles[i], INK, font)
        for j in range(m):
            x, y = GAP + j * (w + GAP), top + head
            page.paste(Image.fromarray(to_rgb(images[i, j])).resize((w, h), Image.Resampling.NEAREST), (x, y))
            if panels.guess is not None and (guess := int(panels.guess[i, j])) >= 0:
                truth = guess if panels.truth is None else int(panels.truth[i, j])
                text = classes[guess] if guess == truth else f"{classes[guess]}, not {classes[truth]}"
                colour = INK if panels.truth is None else RIGHT if guess == truth else WRONG
                draw.text((x, y + h + 1), text, colour, font)
    return np.asarray(page)


def chart(curves: Curves) -> UInt8[np.ndarray, "H W 3"]:
    """Draw lines over a logarithmic x axis."""
    import matplotlib.figure  # takes half a second, for which a command that draws nothing need not wait

    figure = matplotlib.figure.Figure(figsize=(5, 3), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for y, label in zip(np.asarray(curves.y), curves.labels, strict=True):
        axes.plot(np.asarray(curves.x), y, "o-", label=label)
    axes.set(xscale="log", xlabel=curves.axes[0], ylabel=curves.axes[1], ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


def draw(picture: Picture, classes: tuple[str, ...]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw whatever a preview shows."""
    return chart(picture) if isinstance(picture, Curves) else sheet(picture, classes)


def legend(classes: tuple[str, ...], ids: list[int]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a colour and a name for each of the given class ids."""
    font = ImageFont.load_default(14)
    colours = palette(len(classes))
    wide = int(max((font.getlength(classes[i]) for i in ids), default=0))
    page = Image.new("RGB", (wide + 44, 8 + 24 * len(ids)), PAPER)
    draw = ImageDraw.Draw(page)
    for row, i in enumerate(ids):
        draw.rectangle((8, 8 + 24 * row, 26, 24 + 24 * row), tuple(colours[i].tolist()), INK)
        draw.text((36, 7 + 24 * row), classes[i], INK, font)
    return np.asarray(page)


def overlay(image: UInt8[np.ndarray, "h w 3"], mask: np.ndarray, classes: int) -> UInt8[np.ndarray, "h w 3"]:
    """Tint a picture with its classes' colours; class 0 and pixels out of range are darkened."""
    known = (mask > 0) & (mask < classes)
    pixels = image.astype(np.float32)
    tint = palette(classes)[np.where(known, mask, 0)].astype(np.float32)
    mixed = 0.2 * pixels.mean(-1, keepdims=True) + 0.8 * tint
    return np.where(known[..., None], mixed, 0.5 * pixels).round().astype(np.uint8)


def to_rgb(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Turn one or three channels in [-1, 1], or bytes, into RGB bytes."""
    if image.dtype != np.uint8:
        image = np.clip(np.round((image + 1.0) * 127.5), 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else np.ascontiguousarray(image[..., :3])


def save_png(path: pathlib.Path, pixels: np.ndarray) -> None:
    """Write RGB or grey bytes as PNG."""
    Image.fromarray(pixels).save(path, format="PNG")
