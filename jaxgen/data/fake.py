"""Data sets without files, to try a model on: of any shape, with just enough signal that a batch can be learned."""

import abc
import dataclasses

import numpy as np

from jaxgen.data.source import Examples, Shape
from jaxgen.typing import IGNORE, Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fake(abc.ABC):
    """What the sources have in common. Example i is a function of (seed, i)."""

    height: int
    width: int
    channels: int = 3
    classes: int = 10
    size: int = 256
    """Number of examples."""
    seed: int = 0

    @abc.abstractmethod
    def open(self) -> Examples:
        """Return the examples."""

    @classmethod
    def of(cls, shape: Shape, classes: int, count: int) -> "_Fake":
        """Return a source of `count` images of this shape (height, width, channels)."""
        height, width, channels = shape
        return cls(height=height, width=width, channels=channels, classes=classes, size=count)

    def shape(self) -> Shape:
        return self.height, self.width, self.channels

    def fake(self, shape: Shape, classes: int, count: int) -> "_Fake":
        height, width, channels = shape
        return dataclasses.replace(
            self, height=height, width=width, channels=channels, classes=classes if self.classes else 0, size=count
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeLabels(_Fake):
    """Noise coloured by its class: `image` u8[h w c] and `label`, or without classes the image alone."""

    def open(self) -> Examples:
        return _Labels(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeMasks(_Fake):
    """Noise coloured by the classes of a grid of cells: `image` u8[h w c] and `mask`, with a frame of 255 = ignore."""

    cells: int = 4
    """Cells along each side of the grid."""
    captioned: bool = False
    """Whether each image has a `caption`, "noise of colour 3", the class in the first cell."""

    def open(self) -> Examples:
        return _Masks(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeLatents(_Fake):
    """Noise around a mean that is its class's: `image` f32[h w c] and `label`."""

    height: int = 32
    width: int = 32
    channels: int = 4
    classes: int = 1000

    def open(self) -> Examples:
        return _Latents(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeCaptions(_Fake):
    """Noise coloured by its caption: `image` u8[h w c] and `caption`, "noise of colour 3", and `label` with classes."""

    classes: int = 0
    colours: int = 8
    """How many there are, and so captions."""
    length: int = 0
    """Of `tokens` i32[length], for data that a transform gives no tokens; 0 for none."""
    vocabulary: int = 64
    """How many ids there are, of which token ids are drawn."""

    def open(self) -> Examples:
        return _Captions(self)


class _Captions:
    def __init__(self, fake: FakeCaptions):
        self.classes = _names(fake.classes)
        self._fake = fake
        self._colours = _colours(fake.colours, fake.channels)

    def __len__(self) -> int:
        return self._fake.size

    def __getitem__(self, index: int) -> Example:
        fake = self._fake
        rng = _generator(fake.seed, index, fake.size)
        colour = int(rng.integers(fake.colours))
        noise = rng.integers(0, 128, (fake.height, fake.width, fake.channels), np.uint8)
        example = {"image": noise + self._colours[colour], "caption": np.array(f"noise of colour {colour}")}
        if fake.classes:
            example["label"] = np.array(colour % fake.classes, np.int32)
        if fake.length:
            of_colour = np.random.default_rng(colour)
            example["tokens"] = of_colour.integers(fake.vocabulary, size=fake.length).astype(np.int32)
        return example


class _Latents:
    def __init__(self, fake: FakeLatents):
        self.classes = _names(fake.classes)
        self._fake = fake

    def __len__(self) -> int:
        return self._fake.size

    def __getitem__(self, index: int) -> Example:
        fake = self._fake
        rng = _generator(fake.seed, index, fake.size)
        label = rng.integers(fake.classes)
        mean = np.random.default_rng(label).standard_normal(fake.channels)
        noise = 0.5 * rng.standard_normal((fake.height, fake.width, fake.channels))
        return {"image": (mean + noise).astype(np.float32), "label": np.array(label, np.int32)}


class _Labels:
    def __init__(self, fake: FakeLabels):
        self.classes = _names(fake.classes)
        self._fake = fake
        self._colours = _colours(fake.classes, fake.channels)

    def __len__(self) -> int:
        return self._fake.size

    def __getitem__(self, index: int) -> Example:
        fake = self._fake
        rng = _generator(fake.seed, index, fake.size)
        label = rng.integers(max(fake.classes, 1))
        noise = rng.integers(0, 128, (fake.height, fake.width, fake.channels), np.uint8)
        if not fake.classes:
            return {"image": noise}
        return {"image": noise + self._colours[label], "label": np.array(label, np.int32)}


class _Masks:
    def __init__(self, fake: FakeMasks):
        self.classes = _names(fake.classes)
        self._fake = fake
        self._colours = _colours(fake.classes, fake.channels)

    def __len__(self) -> int:
        return self._fake.size

    def __getitem__(self, index: int) -> Example:
        fake = self._fake
        rng = _generator(fake.seed, index, fake.size)
        grid = rng.integers(fake.classes, size=(fake.cells, fake.cells)).astype(np.uint8)
        rows = np.arange(fake.height) * fake.cells // fake.height
        columns = np.arange(fake.width) * fake.cells // fake.width
        mask = grid[rows[:, None], columns[None]]
        noise = rng.integers(0, 128, (fake.height, fake.width, fake.channels), np.uint8)
        image = noise + self._colours[mask]
        mask[[0, -1]] = IGNORE
        mask[:, [0, -1]] = IGNORE
        if not fake.captioned:
            return {"image": image, "mask": mask}
        return {"image": image, "mask": mask, "caption": np.array(f"noise of colour {grid[0, 0]}")}


def _generator(seed: int, index: int, size: int) -> np.random.Generator:
    if not 0 <= index < size:
        raise IndexError(index)
    return np.random.default_rng((seed, index))


def _names(classes: int) -> tuple[str, ...]:
    return tuple(f"class {k}" for k in range(classes))


def _colours(classes: int, channels: int) -> np.ndarray:
    """A colour u8[c] for each class, evenly spread over 0..127 in every channel, in another order in each."""
    levels = np.linspace(0, 127, classes).astype(np.uint8)
    return np.stack([np.random.default_rng(channel).permutation(levels) for channel in range(channels)], axis=1)
