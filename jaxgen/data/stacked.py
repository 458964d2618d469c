"""A thousand modes without a download: three handwritten digits, one in each colour channel."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Int, Int32, UInt8

from jaxgen.data.digits import Digits
from jaxgen.data.fake import FakeLabels
from jaxgen.data.source import Examples, Shape, Source
from jaxgen.errors import UserError
from jaxgen.typing import Example

DIGITS = 10
MODES = DIGITS**3


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackedDigits:
    """Images `image` u8[8 8 3] of three digits of a split of `Digits`, and `label` i32[] = 100·a + 10·b + c.

    The classes a, b, c are drawn first, and then a digit of each, so that all 1,000 modes are equally likely. As
    Stacked MNIST (VEEGAN, arXiv:1705.07761; PacGAN, arXiv:1712.04086), but of 8 × 8 digits: scores do not compare.
    Example i is a function of (split, seed, i). Raises UserError for a size below 1.
    """

    split: Literal["train", "test"] = "train"
    """Of the digits to draw from."""
    size: int = 100_000
    """Number of examples."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"StackedDigits.size is {self.size}; it must be at least 1")

    def open(self) -> Examples:
        examples = Digits(self.split).open()
        digits = [examples[i] for i in range(len(examples))]
        label = np.stack([digit["label"] for digit in digits])
        order = np.argsort(label, kind="stable")
        counts = np.bincount(label, minlength=DIGITS)
        # Each from its own stream, so that example i does not depend on how many follow it.
        stream = lambda number: np.random.default_rng((self.seed, int(self.split == "test"), number))  # noqa: E731
        classes = stream(0).integers(DIGITS, size=(self.size, 3))
        within = (stream(1).random((self.size, 3)) * counts[classes]).astype(int)
        images = np.concatenate([digits[i]["image"] for i in order], axis=-1)
        chosen = (np.cumsum(counts) - counts)[classes] + within
        return _Stacked(images, chosen, (classes @ [100, 10, 1]).astype(np.int32))

    def shape(self) -> Shape:
        return 8, 8, 3

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLabels.of(shape, classes, count)


class _Stacked:
    def __init__(
        self, digits: UInt8[np.ndarray, "8 8 d"], chosen: Int[np.ndarray, "n 3"], labels: Int32[np.ndarray, " n"]
    ):
        self.classes = tuple(f"{k:03d}" for k in range(MODES))
        self._digits, self._chosen, self._labels = digits, chosen, labels
        labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": self._digits.take(self._chosen[index], axis=2), "label": self._labels[index, ...]}

    def take(self, indices: Int[np.ndarray, " n"]) -> Example:
        images = np.moveaxis(self._digits[..., self._chosen[indices]], 2, 0)
        return {"image": np.ascontiguousarray(images), "label": self._labels[indices]}
