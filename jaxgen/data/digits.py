"""The data set `digits`: scikit-learn's 1,797 handwritten digits."""

import dataclasses
from typing import Literal

from jaxgen.data.fake import FakeLabels
from jaxgen.data.source import Examples, Shape, Source, checked
from jaxgen.data.tfds import records


@dataclasses.dataclass(frozen=True)
class Digits:
    """Handwritten digits as `image` u8[8 8 1] with `label` 0..9: 1,437 to train on, 360 to test.

    Prepared on first use, within a second. Raises UserError if it cannot be written.
    """

    split: Literal["train", "test"] = "train"

    def open(self) -> Examples:
        from jaxgen.data import builders  # imports TFDS, and a command that opens no data need not wait

        builder = builders.prepared(builders.DigitsBuilder)
        return checked(records(builder, self.split, {"image": "image", "label": "label"}, builders.DIGITS))

    def shape(self) -> Shape:
        return 8, 8, 1

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLabels.of(shape, classes, count)
