"""A picture prepared as a test example is, and an answer for what was prepared brought back to the picture's own size.

A picture goes through the transforms with a frame (see `geometry`), and with a mask of zeros, which becomes 255 where
the image holds nothing of the picture.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from jaxgen.data.augment import Transform
from jaxgen.data.batches import transformed
from jaxgen.errors import UserError
from jaxgen.typing import Example

BLOCK = 1 << 24  # numbers of an answer that are brought back at once

Places = Float[np.ndarray, "*p"]  # rows or columns, in pixels, 0 at the first one's centre


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A picture after the transforms."""

    image: Shaped[np.ndarray, "h w c"]
    frame: Float[np.ndarray, "2 3"]
    """Where the picture lies in the image; see `geometry`."""
    shown: Bool[np.ndarray, "h w"]
    """Where the image holds a part of the picture."""
    lost: str = ""
    """The first transform that moved the image without its frame, if there is one."""


@dataclasses.dataclass(frozen=True)
class Returned:
    """Rows of an answer at the picture's own size."""

    rows: slice
    values: Shaped[np.ndarray, "r w *n"]
    shown: Bool[np.ndarray, "r w"]
    """False where the transforms cut the picture away: the values there are those nearest by."""


def prepared(picture: UInt8[np.ndarray, "h w c"], transforms: Sequence[Transform], seed: int = 0) -> Prepared:
    """Apply transforms to a picture that comes without a truth.

    Raises UserError where a transform does, or asks for what a picture alone does not have.
    """
    h, w = picture.shape[:2]
    example: Example = {"image": picture, "mask": np.zeros((h, w), np.uint8), "frame": np.eye(2, 3)}
    rng, lost = np.random.default_rng(seed), ""
    for transform in transforms:
        before = example
        try:
            example = transformed(before, (transform,), rng)
        except KeyError as error:
            raise UserError(f"{transform} needs {error}, which a picture without its truth does not have") from error
        lost = lost or ("" if _followed(before, example) else type(transform).__name__)
    image = example["image"]
    if lost:
        return Prepared(image, np.eye(2, 3), np.ones(image.shape[:2], bool), lost)
    return Prepared(image, example["frame"], example["mask"] == 0)


def _followed(before: Example, after: Example) -> bool:
    """Whether frame and mask are where the image is."""
    if "frame" not in after or "mask" not in after or after["mask"].shape != after["image"].shape[:2]:
        return False
    return after["image"].shape[:2] == before["image"].shape[:2] or after["frame"] is not before["frame"]


def returned(values: Float[np.ndarray, "h w n"], at: Prepared, height: int, width: int) -> Iterator[Returned]:
    """Yield an answer for the prepared image at the picture's size height x width, some rows at a time.

    Values are interpolated linearly between pixel centres; an answer of another size than the image's is stretched
    over it. Raises UserError where a transform lost the frame.
    """
    for rows, row, column, shown in _places(values, at, height, width):
        yield Returned(rows, _sampled(values, row, column), shown)


def returned_classes(
    logits: Float[np.ndarray, "h w n"],
    decide: Callable[[np.ndarray], np.ndarray],
    at: Prepared,
    height: int,
    width: int,
) -> Iterator[Returned]:
    """Yield the classes u8[r w] that `decide` finds in the logits as `returned` interpolates them.

    Where the four pixels around a place agree, so does all that lies between them; only elsewhere is interpolated.
    """
    coarse = decide(logits).astype(np.uint8)
    for rows, row, column, shown in _places(logits, at, height, width):
        (y0, y1, _), (x0, x1, _) = _around(row, column, coarse.shape)
        found = coarse[y0, x0]
        border = (found != coarse[y0, x1]) | (found != coarse[y1, x0]) | (found != coarse[y1, x1])
        found[border] = decide(_sampled(logits, row[border], column[border]))
        yield Returned(rows, found, shown)


def _places(
    values: Float[np.ndarray, "h w n"], at: Prepared, height: int, width: int
) -> Iterator[tuple[slice, Places, Places, Bool[np.ndarray, "r c"]]]:
    """Yield some of the picture's rows, where in the answer their pixels' centres lie, and which of these are shown.

    Raises UserError where a transform lost the frame.
    """
    if at.lost:
        raise UserError(
            f"{at.lost} moves the image without its frame, so that no answer can be brought back to the picture; "
            "write it with the moves in jaxgen.data.geometry, or have it move example['frame']"
        )
    h, w, n = values.shape
    sh, sw = at.shown.shape
    block = max(1, BLOCK // max(width * n, 1))
    x = np.arange(width) + 0.5
    for top in range(0, height, block):
        rows = slice(top, min(top + block, height))
        y = (np.arange(rows.start, rows.stop) + 0.5)[:, None]
        u, v = (a * x + b * y + c for a, b, c in at.frame)
        inside = (u >= 0) & (u < sw) & (v >= 0) & (v < sh)
        seen = at.shown[np.clip(v, 0, sh - 1).astype(int), np.clip(u, 0, sw - 1).astype(int)]
        yield rows, v * (h / sh) - 0.5, u * (w / sw) - 0.5, inside & seen


def _sampled(values: Float[np.ndarray, "h w n"], row: Places, column: Places) -> Float[np.ndarray, "*p n"]:
    """Interpolate at these places, counted in pixels between centres; beyond the border lies what lies on it."""
    (y0, y1, dy), (x0, x1, dx) = _around(row, column, values.shape)
    upper = values[y0, x0]
    upper += dx * (values[y0, x1] - upper)
    lower = values[y1, x0]
    lower += dx * (values[y1, x1] - lower)
    lower -= upper
    lower *= dy
    upper += lower
    return upper


def _around(row: Places, column: Places, shape: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return, of rows and columns, the pixels before and after each place, and how far it lies between the two."""
    found = []
    for places, side in zip((row, column), shape, strict=False):
        at = np.clip(places, 0, side - 1)
        first = np.floor(at).astype(int)
        found.append((first, np.minimum(first + 1, side - 1), (at - first)[..., None].astype(np.float32)))
    return found
