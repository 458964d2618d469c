"""The data set `photographs`: real photographs that come with scikit-learn and scikit-image, cut into squares."""

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from jaxgen.data.decode import read_image
from jaxgen.data.fake import FakeLabels
from jaxgen.data.source import Examples, Shape, Source
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example

TEST = ("skimage/chelsea.png", "skimage/coffee.png", "skimage/rocket.jpg", "sklearn/flower.jpg")
TRAIN = (
    "skimage/astronaut.png", "skimage/motorcycle_left.png", "skimage/ihc.png", "skimage/hubble_deep_field.jpg",
    "skimage/retina.jpg", "skimage/brick.png", "skimage/grass.png", "skimage/gravel.png", "sklearn/china.jpg",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Photographs:
    """Squares of photographs, `image` u8[size size 3]: nine photographs to train on, four others to test.

    Those to train on are cut every `stride` pixels, so that squares overlap; those to test side by side, from the top
    left. A cat, a cup of coffee, a rocket and a flower are the test.
    """

    split: Literal["train", "test"] = "train"
    size: int = 96
    """Height and width of a square, in pixels, at most 400."""
    stride: int = 48
    """Pixels from a training square to the next one."""

    def __post_init__(self) -> None:
        check_field(self, "size", 1 <= self.size <= 400, "from 1 to 400 pixels")
        check_field(self, "stride", self.stride >= 1, "at least 1")

    def open(self) -> Examples:
        return _Squares(self)

    def photographs(self) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
        """Return the whole photographs by name.

        Raises UserError if one is not among the installed packages' files.
        """
        names = TRAIN if self.split == "train" else TEST
        return {name.split("/")[1].split(".")[0]: _read(name) for name in names}

    def shape(self) -> Shape:
        return self.size, self.size, 3

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLabels.of(shape, 0, count)


class _Squares:
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, source: Photographs):
        self.origin = f"photographs ({source.split})"
        self._photographs, self._size = source.photographs(), source.size
        step = source.stride if source.split == "train" else source.size
        self._places = [
            (name, y, x)
            for name, photograph in self._photographs.items()
            for y in range(0, photograph.shape[0] - source.size + 1, step)
            for x in range(0, photograph.shape[1] - source.size + 1, step)
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        name, y, x = self._places[index]
        return {"image": self._photographs[name][y : y + self._size, x : x + self._size].copy()}

    def name(self, index: int) -> str:
        name, y, x = self._places[index]
        return f"{name} at {x}, {y}"


def _read(name: str) -> UInt8[np.ndarray, "h w 3"]:
    import skimage.data
    import sklearn.datasets

    package, file = name.split("/")
    folder = Path(skimage.data.__file__).parent if package == "skimage" else Path(sklearn.datasets.__file__).parent
    path = folder / file if package == "skimage" else folder / "images" / file
    if not path.is_file():
        raise UserError(
            f"photographs: {name} is not among the files of {package}; install the version of pyproject.toml"
        )
    return read_image(path, 3, name)
