"""Points in the plane around known centres: data whose density is known, so that samples can be compared with it."""

import abc
import dataclasses
import math

import numpy as np
from jaxtyping import Float32, Float64, Int, Int32

from jaxgen.data.source import Examples, Shape
from jaxgen.errors import UserError
from jaxgen.typing import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture(abc.ABC):
    """Round Gaussians of equal weight and width: `image` f32[2] and `label` i32[], the mode that a point came from.

    Example i is a function of (seed, i): a test split has another seed.
    """

    std: float
    """Standard deviation of each mode along each axis."""
    size: int = 100_000
    """Number of examples; PacGAN's (arXiv:1712.04086, section 4.1)."""
    seed: int = 0

    @abc.abstractmethod
    def centres(self) -> Float64[np.ndarray, "k 2"]:
        """Return the means of the modes, in the order of their labels."""

    def open(self) -> Examples:
        centres = self.centres()
        # Each from its own stream, so that example i does not depend on how many follow it.
        labels = np.random.default_rng((self.seed, 0)).integers(len(centres), size=self.size, dtype=np.int32)
        noise = np.random.default_rng((self.seed, 1)).standard_normal((self.size, 2))
        return _Points((centres[labels] + self.std * noise).astype(np.float32), labels, len(centres))

    def shape(self) -> Shape:
        return (2,)

    def fake(self, shape: Shape, classes: int, count: int) -> "Mixture":
        """Return fewer of the same points: they need no files."""
        return dataclasses.replace(self, size=count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ring(Mixture):
    """Modes evenly spread over a circle around 0."""

    modes: int = 8
    radius: float = 1.0
    std: float = 0.01

    def centres(self) -> Float64[np.ndarray, "k 2"]:
        angle = np.arange(self.modes) * math.tau / self.modes
        return self.radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridOfGaussians(Mixture):
    """Modes on a square grid around 0, row by row."""

    side: int = 5
    """Modes along each side."""
    spacing: float = 2.0
    std: float = 0.05

    def centres(self) -> Float64[np.ndarray, "k 2"]:
        line = self.spacing * (np.arange(self.side) - (self.side - 1) / 2)
        y, x = np.meshgrid(line, line, indexing="ij")
        return np.stack([x.ravel(), y.ravel()], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spiral(Mixture):
    """Two arms of a spiral, each a string of modes so close that they run together: first one arm's, then the other's.

    An arm is Archimedes' r = radius·angle / (turns·2π) from a quarter turn on, the other its mirror image in 0; modes
    lie evenly along it.
    """

    modes: int = 200
    """Modes in both arms together: an even number."""
    turns: float = 1.5
    radius: float = 1.0
    """Distance of the arms' ends from 0."""
    std: float = 0.03

    def __post_init__(self) -> None:
        if self.modes < 4 or self.modes % 2:
            raise UserError(f"Spiral.modes is {self.modes}; two arms need an even number, at least 4")

    def centres(self) -> Float64[np.ndarray, "k 2"]:
        angle = np.linspace(math.pi / 2, self.turns * math.tau, 10_000)
        curve = (self.radius * angle / angle[-1])[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
        even = np.linspace(0, length[-1], self.modes // 2)
        arm = np.stack([np.interp(even, length, curve[:, axis]) for axis in range(2)], axis=1)
        return np.concatenate([arm, -arm])


class _Points:
    def __init__(self, points: Float32[np.ndarray, "n 2"], labels: Int32[np.ndarray, " n"], modes: int):
        self.classes = tuple(f"mode {k}" for k in range(modes))
        self._points, self._labels = points, labels
        points.flags.writeable = labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Example:
        return {"image": self._points[index], "label": self._labels[index, ...]}

    def take(self, indices: Int[np.ndarray, " n"]) -> Example:
        return {"image": self._points[indices], "label": self._labels[indices]}
