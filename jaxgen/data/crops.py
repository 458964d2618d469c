"""From pictures with boxes to pictures of one thing: crops around what is in a box, and around nothing."""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

from jaxgen.data import geometry
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example


@dataclasses.dataclass(frozen=True)
class BoxCrop:
    """A square crop and its class: `image` u8[side side c] and `label`, from an image with `boxes` and `labels`.

    Of an image with k boxes each is drawn with probability 1 / (k + 1), and so is background, which is class 0. What
    lies outside the image is filled with its mean colour. Raises UserError for an example without boxes or labels.
    """

    side: int
    jitter: float = 4.0
    """Pixels, along either axis, that the crop's middle lies from the box's at most."""
    free: int = 12
    """Side of the square in the middle of a crop of background that no box reaches into, in pixels. Where a picture
    has no room for it, a box is drawn."""

    def __post_init__(self) -> None:
        check_field(self, "side", self.side >= 1, "1 or more")
        check_field(self, "jitter", 0 <= self.jitter < math.inf, "0 or more")
        check_field(self, "free", self.free >= 0, "0 or more")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        if missing := [name for name in ("boxes", "labels") if name not in example]:
            raise UserError(
                f"BoxCrop needs boxes and labels with each image; the data has no {' and no '.join(missing)}"
            )
        h, w = geometry.size(example)
        boxes, labels = example["boxes"], example["labels"]
        centres = np.argwhere(self._free(boxes, h, w))
        drawn = int(rng.integers(len(boxes) + (len(centres) > 0)))
        if drawn < len(boxes):
            x0, y0, x1, y1 = boxes[drawn].tolist()
            moved = np.array([y0 + y1, x0 + x1]) / 2 + rng.uniform(-self.jitter, self.jitter, 2)
            y, x = moved.clip(0.5, (h - 0.5, w - 0.5))
            label = labels[drawn]
        else:
            y, x = centres[rng.integers(len(centres))] + 0.5
            label = 0
        corner = round(float(y) - self.side / 2), round(float(x) - self.side / 2)
        crop = geometry.window({"image": example["image"]}, (h, w), corner, self.side, self.side)
        return {"image": crop["image"], "label": np.array(label, np.int32)}

    def _free(self, boxes: Float[np.ndarray, "k 4"], h: int, w: int) -> Bool[np.ndarray, "h w"]:
        """Mark the pixels around which no box reaches into the free square."""
        free = np.ones((h, w), bool)
        middles_y, middles_x = np.arange(h) + 0.5, np.arange(w) + 0.5
        for x0, y0, x1, y1 in boxes:
            rows = (middles_y > y0 - self.free / 2) & (middles_y < y1 + self.free / 2)
            columns = (middles_x > x0 - self.free / 2) & (middles_x < x1 + self.free / 2)
            free[np.ix_(rows, columns)] = False
        return free
