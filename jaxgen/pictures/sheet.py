"""Pictures for people: panels laid out on a sheet, with titles, captions and legends."""

import io
import pathlib
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from jaxgen.pictures.colours import palette, tint
from jaxgen.pictures.panels import Curves, Panels, Picture
from jaxgen.pictures.pixels import scatter

PAPER, INK, RIGHT, WRONG = (255, 255, 255), (40, 40, 40), (24, 120, 60), (200, 40, 40)
GAP, LEAST = 6, 96  # pixels between images; smaller images are enlarged to at least this size


def sheet(panels: Panels, classes: tuple[str, ...]) -> UInt8[np.ndarray, "H W 3"]:
    """Lay panels out on white paper, each row below its title, class names below the images."""
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


def samples(
    images: np.ndarray, labels: np.ndarray | None, classes: Sequence[str], columns: int | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay samples out in rows, nearly square by default, with their classes below; of points, draw where they lie.

    `images` is f32[n h w c] in [-1, 1] or points f32[n 2], `labels` i32[n].
    """
    if images.ndim == 2:
        return to_rgb(np.asarray(scatter(jnp.asarray(images), size=480)))
    count = len(images)
    if columns is None:
        columns = min(count, 10 if labels is not None else int(np.ceil(np.sqrt(count))))
    rows = -(-count // columns)
    blank = np.ones((rows * columns - count, *images.shape[1:]), images.dtype)
    filled = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    if labels is None:
        return sheet(Panels(images=filled), ())
    named = np.concatenate([labels, np.full(len(blank), -1, np.int32)]).reshape(rows, columns)
    return sheet(Panels(images=filled, guess=named), tuple(classes))


def chart(curves: Curves) -> UInt8[np.ndarray, "H W 3"]:
    """Draw lines over a logarithmic x axis."""
    import matplotlib.figure  # takes half a second, and a command that draws nothing need not wait

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
    """Draw what a preview shows."""
    return chart(picture) if isinstance(picture, Curves) else sheet(picture, classes)


def legend(classes: tuple[str, ...], ids: list[int]) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a colour and a name for each of these class ids."""
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
    """Colour an image by class: class 0 is darkened, pixels of id 255 = ignore turn white."""
    return to_rgb(np.asarray(tint(image.astype(np.float32) / 127.5 - 1, mask, classes)))


def to_rgb(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """Turn one or three channels in [-1, 1], or bytes, into RGB bytes."""
    if image.dtype != np.uint8:
        image = np.clip(np.round((image + 1.0) * 127.5), 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else np.ascontiguousarray(image[..., :3])


def save_png(path: pathlib.Path, pixels: np.ndarray) -> None:
    """Write RGB or grey bytes as PNG."""
    Image.fromarray(pixels).save(path, format="PNG")
