"""The moves that all augmentations are made of. Each moves image, target, mask, boxes and frame into a new example.

Images are interpolated bilinearly (with antialiasing where they shrink), masks by nearest neighbour. Outside the image
lies its mean colour, or a given grey level, and the mask id 255. A caption is dropped where it may no longer be true;
where left and right are exchanged, so are these words in it. Token ids must come after the last move.
`frame` f64[2 3], where an example has one, says where the original picture lies in the image: the affine map from
(x, y, 1) there to (x, y) here, in pixels from the top left corner (edges: a pixel's centre is half a pixel further).
All raise UserError for pixels that they do not know how to move; see `pixels`.
"""

import math
import re

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example

PIXELS = ("image", "target")  # images u8[h w c] of one size, moved alike: a paired target follows its image
Box = tuple[float, float, float, float]  # y0 x0 y1 x1 in pixels

# English, and in Korean where it stands alone or before a side, a hand or a foot: not in 떠오른, "risen".
SIDES = re.compile(
    r"\b(?:left|right)(?=\b|wards?\b|most\b)|(?<![가-힣])(?:왼|오른)(?=쪽|편|손|발|팔|눈)", re.IGNORECASE
)
OPPOSITE = {"left": "right", "right": "left", "왼": "오른", "오른": "왼"}

MAX_SIDE = 64  # pixels along each side that the mean colour is taken over


def size(example: Example) -> tuple[int, int]:
    """Return (height, width) of the image."""
    return example["image"].shape[:2]


def pixels(example: Example) -> list[str]:
    """Return the names of the example's images.

    Raises UserError where one has another size than `image`, or another array of the image's height and width has a
    name that does not say how its pixels move: if it stayed while the image moves, it would be wrong without an error.
    """
    h, w = size(example)
    for key, value in example.items():
        same = value.shape[:2] == (h, w)
        if key in PIXELS and not same:
            raise UserError(f"{key} is {'x'.join(map(str, value.shape[:2]))}, but image is {h}x{w}; resize them before")
        if key not in (*PIXELS, "mask", "boxes", "frame") and (same or value.ndim > 2):
            shape = "x".join(map(str, value.shape[:2]))
            raise UserError(
                f"{key}: transforms do not know how to move these {shape} pixels; they move image, target and mask"
            )
    return [key for key in PIXELS if key in example]


def without_caption(example: Example) -> Example:
    """Return the example without its caption. Raises UserError where that lives on as token ids."""
    _check_no_tokens(example)
    return {key: value for key, value in example.items() if key != "caption"}


def mirrored_caption(caption: str) -> str:
    """Exchange the words left and right, and their like in Korean: "a red 3 right of a blue 7"."""
    return SIDES.sub(lambda found: _as_written(OPPOSITE[found[0].lower()], found[0]), caption)


def _as_written(word: str, like: str) -> str:
    return word.upper() if like.isupper() else word.capitalize() if like[0].isupper() else word


def _check_no_tokens(example: Example) -> None:
    if any(key.startswith("tokens") for key in example):
        raise UserError("tokens of a caption that may no longer be true: put Tokenize after the transforms of pixels")


def colours(image: Shaped[np.ndarray, "h w c"]) -> int:
    """Return how many of the first channels are no alpha, which is the last of two or four of bytes."""
    channels = image.shape[2]
    return channels - 1 if image.dtype == np.uint8 and channels in (2, 4) else channels


def mean_colour(image: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, " c"]:
    """Return the mean of a grid of at most 64x64 pixels (of all pixels, where there are no more), in their type."""
    h, w = (max(1, -(-side // MAX_SIDE)) for side in image.shape[:2])
    grid = image[::h, ::w]
    if image.dtype != np.uint8:
        return grid.mean((0, 1), dtype=image.dtype)
    total = grid.sum(0, dtype=np.uint32).sum(0)  # ten times as fast as a mean over both axes
    return np.round(total / (grid.shape[0] * grid.shape[1])).astype(np.uint8)


def cut(example: Example, box: Box, height: int, width: int) -> Example:
    """Cut (y0, x0, y1, x1), which lies inside the image, and resize it to height x width."""
    y0, x0, y1, x1 = box
    images = pixels(example)
    whole = box == (0, 0, *size(example))
    if whole and size(example) == (height, width):
        return example
    out = example if whole else without_caption(example)
    out = out | {key: _resized(example[key], box, height, width, Image.Resampling.BILINEAR) for key in images}
    if "mask" in example:
        out["mask"] = _resized(example["mask"][:, :, None], box, height, width, Image.Resampling.NEAREST)[:, :, 0]
    if "boxes" in example:
        origin = np.array((x0, y0, x0, y0), np.float32)
        factor = np.array((width / (x1 - x0), height / (y1 - y0)) * 2, np.float32)
        out |= _clipped(out, (example["boxes"] - origin) * factor, height, width)
    scale = np.diag((width / (x1 - x0), height / (y1 - y0)))
    return out | _framed(example, scale, scale @ np.array((-x0, -y0)))


def place(example: Example, top: int, left: int, height: int, width: int, fill: int | None = None) -> Example:
    """Place the image with its corner at (top, left) on a canvas height x width that is large enough."""
    h, w = size(example)
    images = pixels(example)
    if (h, w) == (height, width):
        return example
    out = dict(example)
    for key in images:
        out[key] = np.empty((height, width, example[key].shape[2]), example[key].dtype)
        out[key][...] = mean_colour(example[key]) if fill is None else fill
        out[key][top : top + h, left : left + w] = example[key]
    if "mask" in example:
        out["mask"] = np.full((height, width), IGNORE, np.uint8)
        out["mask"][top : top + h, left : left + w] = example["mask"]
    if "boxes" in example:
        out["boxes"] = example["boxes"] + np.array((left, top, left, top), np.float32)
    return out | _framed(example, np.eye(2), np.array((left, top), float))


def window(
    example: Example, scaled: tuple[int, int], corner: tuple[int, int], height: int, width: int, fill: int | None = None
) -> Example:
    """Resize the image to `scaled`, then cut height x width at `corner`; what lies outside the image is padded."""
    (h, w), (hs, ws), (top, left) = size(example), scaled, corner
    y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + height, hs), min(left + width, ws)
    inner = cut(example, (y0 * h / hs, x0 * w / ws, y1 * h / hs, x1 * w / ws), y1 - y0, x1 - x0)
    return place(inner, y0 - top, x0 - left, height, width, fill)


def mirror(example: Example) -> Example:
    """Exchange left and right, in the caption, too."""
    _check_no_tokens(example)
    out = example | {key: example[key][:, ::-1] for key in pixels(example)}
    if "caption" in example:
        out["caption"] = np.array(mirrored_caption(example["caption"].item()))
    if "mask" in example:
        out["mask"] = example["mask"][:, ::-1]
    if "boxes" in example:
        x0, y0, x1, y1 = example["boxes"].T
        width = np.float32(size(example)[1])
        out["boxes"] = np.stack([width - x1, y0, width - x0, y1], axis=1)
    return out | _framed(example, np.diag((-1.0, 1.0)), np.array((size(example)[1], 0.0)))


def warp(
    example: Example, matrix: Float[np.ndarray, "2 2"], shift: tuple[float, float], fill: int | None = None
) -> Example:
    """Map every point (x, y), seen from the centre, to matrix @ (x, y) + shift (pixels).

    A box becomes the box around its mapped corners, so that it may be wider than what it holds.
    """
    h, w = size(example)
    centre = np.array([w / 2, h / 2])
    target = centre + np.array(shift)
    inverse = np.linalg.inv(matrix)
    offset = centre - inverse @ target
    coefficients = (*inverse[0].tolist(), float(offset[0]), *inverse[1].tolist(), float(offset[1]))
    out = without_caption(example)
    for key in pixels(example):
        outside = mean_colour(example[key]).tolist() if fill is None else [fill] * example[key].shape[2]
        out[key] = _warped(example[key], coefficients, outside, Image.Resampling.BILINEAR)
    if "mask" in example:
        out["mask"] = _warped(example["mask"][:, :, None], coefficients, [IGNORE], Image.Resampling.NEAREST)[:, :, 0]
    if "boxes" in example:
        corners = example["boxes"][:, [[0, 1], [2, 1], [0, 3], [2, 3]]] - centre
        moved = corners @ matrix.T + target
        boxes = np.concatenate([moved.min(1), moved.max(1)], axis=1).astype(np.float32)
        out |= _clipped(out, boxes, h, w)
    return out | _framed(example, matrix, target - matrix @ centre)


def _framed(example: Example, matrix: Float[np.ndarray, "2 2"], shift: Float[np.ndarray, " 2"]) -> Example:
    """The example's frame, where it has one, after every point p of the image went to matrix @ p + shift."""
    if "frame" not in example:
        return {}
    moved = matrix @ example["frame"]
    moved[:, 2] += shift
    return {"frame": moved}


def _clipped(example: Example, boxes: Float[np.ndarray, "k 4"], height: int, width: int) -> Example:
    """Boxes cut at the border, with their labels; those of which less than a pixel is left are dropped."""
    boxes = np.clip(boxes, np.float32(0), np.array((width, height, width, height), np.float32))
    kept = ((boxes[:, 2:] - boxes[:, :2]) >= 1).all(1)
    return {"boxes": boxes[kept]} | ({"labels": example["labels"][kept]} if "labels" in example else {})


def _resized(
    image: Shaped[np.ndarray, "_ _ c"], box: Box, height: int, width: int, how: int
) -> Shaped[np.ndarray, "_ _ c"]:
    y0, x0, y1, x1 = box
    top, left = int(y0), int(x0)
    part = image[top : math.ceil(y1), left : math.ceil(x1)]
    if (y1 - y0, x1 - x0) == (height, width) == part.shape[:2]:
        return part
    inside = (x0 - left, y0 - top, x1 - left, y1 - top)
    return _joined([plane.resize((width, height), how, inside) for plane in _planes(part)])


def _warped(
    image: Shaped[np.ndarray, "h w c"], coefficients: tuple[float, ...], fill: list[int] | list[float], how: int
) -> Shaped[np.ndarray, "h w c"]:
    planes = _planes(image)
    fills = [tuple(fill)] if len(planes) < len(fill) else fill
    area = (image.shape[1], image.shape[0])
    affine = Image.Transform.AFFINE
    return _joined(
        [p.transform(area, affine, coefficients, how, fillcolor=f) for p, f in zip(planes, fills, strict=True)]
    )


def _planes(image: Shaped[np.ndarray, "h w c"]) -> list[Image.Image]:
    """The image as Pillow knows images: three channels of bytes together, otherwise each by itself (no alpha)."""
    if image.shape[2] == 3 and image.dtype == np.uint8:
        return [Image.fromarray(image)]
    return [Image.fromarray(image[:, :, c]) for c in range(image.shape[2])]


def _joined(planes: list[Image.Image]) -> Shaped[np.ndarray, "h w c"]:
    if len(planes) == 1:
        array = np.asarray(planes[0])
        return array if array.ndim == 3 else array[:, :, None]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)
