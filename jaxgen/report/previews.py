"""Previews over time: as many of them, and as sharp, as fit into a page."""

import base64
import io
import pathlib
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

from PIL import Image, UnidentifiedImageError

from jaxgen.report import markup
from jaxgen.report.markup import element

BYTES = 700_000  # of all pictures of a page; base64 takes a third more
FRAMES = 32  # pictures of one name
WIDEST = 1600  # pixels
SMALL = 320  # pixels: narrower ones are enlarged
QUALITY = 82

Pictures = Sequence[tuple[int, pathlib.Path]]


def section(previews: Mapping[str, Pictures], budget: int = BYTES) -> ET.Element | None:
    """Show each preview's last picture, and a slider over the earlier ones for the page's script; None without any."""
    shown = [_figure(name, frames) for name, frames in chosen(previews, budget).items() if frames]
    return markup.section("Previews", *shown) if shown else None


def chosen(previews: Mapping[str, Pictures], budget: int) -> dict[str, list[tuple[int, "Frame"]]]:
    """Encode evenly spaced pictures of each name, the last one among them, so that all take so many bytes at the most.

    A picture that cannot be read is left out.
    """
    share = budget // max(len(previews), 1)
    return {name: _within(pictures, share) for name, pictures in previews.items()}


class Frame:
    """A picture as a page holds it."""

    def __init__(self, image: Image.Image, kind: str, data: bytes) -> None:
        self.width, self.height = image.size
        self.size = len(data)
        self.uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _within(pictures: Pictures, share: int) -> list[tuple[int, Frame]]:
    most, width = min(FRAMES, len(pictures)), WIDEST
    last = encoded(pictures[-1][1], share // most, width)
    while last and last.size > share and width > SMALL:
        width //= 2
        last = encoded(pictures[-1][1], share // most, width)
    if last:
        most = min(most, max(share // max(last.size, 1), 1))
    while True:
        each = share // most
        found = [(step, encoded(path, each, width)) for step, path in spaced(pictures, most)]
        frames = [(step, frame) for step, frame in found if frame]
        if most == 1 or sum(frame.size for _, frame in frames) <= share:
            return [(step, frame) for step, frame in frames if frame.size <= share]
        most //= 2


def spaced(pictures: Pictures, most: int) -> Pictures:
    """Take so many at the most, the first and the last among them; of one, the last."""
    if len(pictures) <= most:
        return pictures
    if most == 1:
        return pictures[-1:]
    return [pictures[round(i * (len(pictures) - 1) / (most - 1))] for i in range(most)]


def encoded(path: pathlib.Path, small: int, widest: int) -> Frame | None:
    """Return a file as it is where it takes so few bytes, else as WebP, so wide at the most.

    None for a file that is broken.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if len(data) <= small and image.width <= widest:
                image.load()
                return Frame(image, "png", data)
            rgb = image.convert("RGB")
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return None  # cut short by a crash, or no picture
    if rgb.width > widest:
        rgb = rgb.resize((widest, max(1, rgb.height * widest // rgb.width)), Image.Resampling.BOX)
    buffer = io.BytesIO()
    rgb.save(buffer, "WEBP", quality=QUALITY, method=2)
    return Frame(rgb, "webp", buffer.getvalue())


def _figure(name: str, frames: list[tuple[int, Frame]]) -> ET.Element:
    step, last = frames[-1]
    zoom = max(1, SMALL // last.width)
    size = {"width": str(zoom * last.width), "height": str(zoom * last.height)}
    size["style"] = f"--wide:{zoom * last.width}px"
    picture = element(
        "img", {"src": last.uri, "alt": f"{name} at step {step:,}", **size} | ({"class": "small"} if zoom > 1 else {})
    )
    when = element("output", {}, f"step {step:,}")
    earlier = [{"step": step, "src": frame.uri} for step, frame in frames[:-1]]  # the last one is in the page already
    return element(
        "figure", {"class": "preview"}, element("figcaption", {}, element("b", {}, name), " ", when),
        element("div", {"class": "scroll", "tabindex": "0"}, picture),
        markup.data("frames", {"name": name, "last": step, "earlier": earlier}) if earlier else None,
    )  # fmt: skip
