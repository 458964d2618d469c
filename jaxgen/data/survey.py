"""A look at every example of a data set: how large, how many of each class, which of them twice."""

import collections
import dataclasses
import hashlib

import numpy as np
from jaxtyping import Float64, Int64

from jaxgen.data.source import Examples, name_of
from jaxgen.errors import UserError
from jaxgen.typing import IGNORE, Example


@dataclasses.dataclass(frozen=True)
class Survey:
    """What was counted over some examples of n classes."""

    examples: int
    """How many were looked at."""
    sizes: dict[tuple[int, ...], int]
    """How many images have each shape."""
    unit: str
    """What classes are counted in: "examples", "pixels" of masks, or "" where there are no classes."""
    counts: Int64[np.ndarray, " n"]
    """How many examples or pixels each class has."""
    images: Int64[np.ndarray, " n"]
    """How many images each class is in."""
    around: Int64[np.ndarray, " n"]
    """How many examples or pixels that count are in the images that have the class."""
    ignored: int
    """How many pixels of the masks are 255."""
    digests: dict[bytes, list[int]]
    """The places of the images with the same pixels."""
    faults: tuple[str, ...] = ()
    """What is wrong with examples that cannot be read; they are counted nowhere else."""

    @property
    def shares(self) -> Float64[np.ndarray, " n"]:
        """Each class's share of all that counts."""
        return self.counts / max(self.counts.sum(), 1)

    def inverse_frequency(self) -> list[float]:
        """Return 1 / (n · share) for each class, whose mean over all that counts is 1; 0 for one without examples."""
        return _inverse(self.shares * max((self.counts > 0).sum(), 1))

    def median_frequency(self) -> list[float]:
        """Return median / frequency, of a class's share in the images that have it (arXiv:1411.4734, section 6.3.2)."""
        frequency = self.counts / np.maximum(self.around, 1)
        present = frequency[self.counts > 0]
        return _inverse(frequency / (np.median(present) if len(present) else 1.0))


def survey(examples: Examples, most: int) -> Survey:
    """Look at all examples, or at `most` of them, evenly spread, going on past those that cannot be read."""
    n = len(examples.classes)
    places = np.unique(np.linspace(0, len(examples) - 1, min(most, len(examples))).astype(int)).tolist()
    sizes: collections.Counter[tuple[int, ...]] = collections.Counter()
    counts, images, around = (np.zeros(n, np.int64) for _ in range(3))
    ignored, unit = 0, ""
    digests: dict[bytes, list[int]] = {}
    faults = []
    for place in places:
        try:
            example = examples[place]
        except UserError as error:
            faults.append(str(error))
            continue
        sizes[example["image"].shape] += 1
        digests.setdefault(_digest(example["image"]), []).append(place)
        found, unit = _classes(example, n)
        ignored += int((example["mask"] == IGNORE).sum()) if "mask" in example else 0
        counts += found
        images += found > 0
        around += (found > 0) * found.sum()
    seen = len(places) - len(faults)
    return Survey(seen, dict(sizes), unit, counts, images, around, ignored, digests, tuple(faults))


def twice(train: Survey, test: Survey, train_set: Examples, test_set: Examples) -> list[tuple[str, str]]:
    """Return the names of the test images whose pixels a training image has too, each with that one's."""
    shared = sorted(test.digests.keys() & train.digests.keys(), key=lambda digest: test.digests[digest][0])
    return [
        (name_of(test_set, place), name_of(train_set, train.digests[digest][0]))
        for digest in shared
        for place in test.digests[digest]
    ]


def _classes(example: Example, n: int) -> tuple[Int64[np.ndarray, " n"], str]:
    """How many pixels or examples of each class an example has, and which of the two."""
    if "mask" in example:
        return np.bincount(example["mask"].ravel(), minlength=256)[:IGNORE][:n].astype(np.int64), "pixels"
    if "label" in example:
        return np.bincount([int(example["label"])], minlength=n).astype(np.int64), "examples"
    return np.zeros(n, np.int64), ""


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(image.tobytes() + repr(image.shape).encode(), digest_size=16).digest()


def _inverse(values: np.ndarray) -> list[float]:
    return [float(np.float64(f"{1 / value:.3g}")) if value > 0 else 0.0 for value in values.tolist()]
