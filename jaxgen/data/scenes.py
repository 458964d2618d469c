"""The data set `scenes`: real digits, several in an image, over real photographs."""

import dataclasses
from typing import Literal

from jaxgen.data.fake import FakeMasks
from jaxgen.data.source import Examples, Shape, Source, checked
from jaxgen.data.tfds import records


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Coloured digits over crops of photographs, `image` u8[64 64 3]: 6,000 to train on, 1,000 to test.

    `mask` u8[64 64] holds 0 = background, d + 1 = digit d. Each digit has a box in `boxes` f32[k 4], the edges
    x0 y0 x1 y1 of its mask in pixels, and in `labels` i32[k] the id that the mask uses. `caption` says what is there,
    "a red 3 left of a blue 7". Test scenes share neither digits nor photograph with training scenes.

    Prepared on first use, in about ten seconds. Raises UserError if it cannot be written.
    """

    split: Literal["train", "test"] = "train"

    def open(self) -> Examples:
        from jaxgen.data import builders  # imports TFDS, and a command that opens no data need not wait

        builder = builders.prepared(builders.ScenesBuilder)
        keys = {key: key for key in ("image", "mask", "boxes", "labels", "caption")}
        return checked(records(builder, self.split, keys, ("background", *builders.DIGITS)))

    def shape(self) -> Shape:
        return 64, 64, 3

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        """Return images and masks alone: boxes and captions are in no batch."""
        return FakeMasks.of(shape, classes, count)
