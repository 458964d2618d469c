"""Two sets of pictures that nobody has matched: what unpaired translation learns from (arXiv:1703.10593)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxgen.data.augment import Transform
from jaxgen.data.batches import Pipeline, draws, shuffled, transformed
from jaxgen.data.fake import FakeLabels
from jaxgen.data.source import Examples, Fakeable, Shape, Source, described, name_of
from jaxgen.errors import UserError
from jaxgen.typing import Example

OWN = 1 << 32  # what is added to the seed for side b, so that the orders of the sides have nothing in common


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sides:
    """Two domains, each with its own order and draws."""

    a: Pipeline
    """Where translation to b starts, and what happens to each picture before it joins a batch."""
    b: Pipeline
    """Where it leads; transforms after these are the experiment's own. Neither side's `workers` is used."""

    def _opened(self) -> "tuple[_Side, _Side]":
        source = type(self).__name__
        a, b = (_Side(pipeline, f"{source}: the domain {name}") for pipeline, name in ((self.a, "a"), (self.b, "b")))
        first, other = a.at(0)["image"].shape, b.at(0)["image"].shape
        if first != other:
            sizes = " and b of ".join("x".join(map(str, shape)) for shape in (first, other))
            raise UserError(
                f"{source}: pictures of a are of {sizes}; give both sides transforms that end in one "
                "size, such as Resize or RandomResizedCrop, and sources of as many channels"
            )
        return a, b

    def shape(self) -> Shape | None:
        """Return the shape of b's pictures, where the source and the transforms tell."""
        if not isinstance(self.b.source, Fakeable):
            return None
        raw = self.b.source.shape()
        shapes = {self._transformed(size) for size in ([raw] if raw else [(400, 500, 3), (500, 400, 3)])}
        return shapes.pop() if len(shapes) == 1 else None

    def _transformed(self, shape: Shape) -> Shape:
        example = {"image": np.zeros(shape, np.uint8)}
        height, width, channels = transformed(example, self.b.transforms, draws(0, 0))["image"].shape
        return height, width, channels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unpaired(_Sides):
    """A picture of each of two domains, `source` u8[h w c] of a and `image` u8[h w c] of b, which no one has matched.

    In training each side has the order and the draws of a pipeline of its own: position j of it is a function of (seed,
    j), so that sides of any lengths run through all their pictures before one comes again. An epoch, and the number of
    examples, are the longer side's. In evaluation example i is picture i of both, and the shorter side begins anew.

    Raises UserError when opened if a side is empty, or the sides' pictures differ in size or channels.
    """

    def open(self) -> Examples:
        return _Both(*self._opened())

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeDomains.of(shape, count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EitherDomain(_Sides):
    """Pictures of two domains in turn, `image` u8[h w c] and `label`, 0 for a and 1 for b.

    What one model of both learns from, told which to make: pictures are translated by their noise (Dual diffusion
    implicit bridges, arXiv:2203.08382). Orders, draws and refusals are those of `Unpaired`.
    """

    def open(self) -> Examples:
        return _Either(*self._opened())

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        height, width, channels = shape
        return FakeLabels(height=height, width=width, channels=channels, classes=2, size=count)


class _Side:
    """The pictures of a domain, prepared."""

    def __init__(self, pipeline: Pipeline, name: str):
        self.examples: Examples = pipeline.source.open()
        self._transforms: Sequence[Transform] = pipeline.transforms
        if not len(self.examples):
            raise UserError(f"{name} is empty; its source holds no pictures")

    def __len__(self) -> int:
        return len(self.examples)

    def at(self, index: int) -> Example:
        """Return picture `index`, as evaluation prepares it."""
        return self._prepared(index, np.random.default_rng(index))

    def drawn(self, seed: int, position: int) -> Example:
        """Return the picture at this place of the training."""
        return self._prepared(shuffled(seed, position, len(self)), draws(seed, position))

    def _prepared(self, index: int, rng: np.random.Generator) -> Example:
        return transformed(self.examples[index], self._transforms, rng)


class _Pair:
    """Both sides, and where they are from."""

    classes: tuple[str, ...] = ()

    def __init__(self, a: _Side, b: _Side):
        self._a, self._b = a, b
        found = [described(side.examples) for side in (a, b)]
        self.origin = " and ".join(dict.fromkeys(origin for origin, _ in found if origin))
        self.notes = tuple(dict.fromkeys(note for _, notes in found for note in notes))


class _Both(_Pair):
    """One picture of each side."""

    def __len__(self) -> int:
        return max(len(self._a), len(self._b))

    def __getitem__(self, index: int) -> Example:
        return _joined(self._a.at(index % len(self._a)), self._b.at(index % len(self._b)))

    def at(self, seed: int, position: int) -> Example:
        return _joined(self._a.drawn(seed, position), self._b.drawn(seed + OWN, position))

    def name(self, index: int) -> str:
        return name_of(self._b.examples, index % len(self._b))


class _Either(_Pair):
    """A picture of one side, then one of the other."""

    classes = ("a", "b")

    def __len__(self) -> int:
        return 2 * max(len(self._a), len(self._b))

    def __getitem__(self, index: int) -> Example:
        side = self._side(index)
        return _labelled(side.at(index // 2 % len(side)), index % 2)

    def at(self, seed: int, position: int) -> Example:
        return _labelled(self._side(position).drawn(seed + OWN * (position % 2), position // 2), position % 2)

    def name(self, index: int) -> str:
        side = self._side(index)
        return name_of(side.examples, index // 2 % len(side))

    def _side(self, index: int) -> _Side:
        return (self._a, self._b)[index % 2]


def _labelled(example: Example, label: int) -> Example:
    return {"image": example["image"], "label": np.array(label, np.int32)}


def _joined(a: Example, b: Example) -> Example:
    return {"image": b["image"], "source": a["image"]}


# --- without files ----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeDomains:
    """Noise of two colours in the place of two domains: `source` and `image` u8[h w c], and with `matched` `target`.

    The target is the source turned around. Example i is a function of (seed, i).
    """

    height: int
    width: int
    channels: int = 3
    size: int = 256
    """Number of examples."""
    seed: int = 0
    matched: bool = False
    """Whether the truth is known: `target` u8[h w c] is there, and `image` is it."""

    @classmethod
    def of(cls, shape: Shape, count: int) -> "FakeDomains":
        """Return a source of `count` pairs of this shape (height, width, channels)."""
        height, width, channels = shape
        return cls(height=height, width=width, channels=channels, size=count)

    def open(self) -> Examples:
        sides = (
            FakeLabels(height=self.height, width=self.width, channels=self.channels, classes=2, size=self.size, seed=s)
            for s in (2 * self.seed, 2 * self.seed + 1)
        )
        source, image = (side.open() for side in sides)
        return _Fakes(source, image, self.matched)

    def shape(self) -> Shape:
        return self.height, self.width, self.channels

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return dataclasses.replace(self.of(shape, count), seed=self.seed, matched=self.matched)


class _Fakes:
    classes: tuple[str, ...] = ()

    def __init__(self, source: Examples, image: Examples, matched: bool):
        self._source, self._image, self._matched = source, image, matched

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        source = self._source[index]["image"]
        if not self._matched:
            return {"image": self._image[index]["image"], "source": source}
        target = source[::-1].copy()
        return {"image": target, "source": source, "target": target}
