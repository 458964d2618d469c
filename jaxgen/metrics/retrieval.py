"""Retrieval: whether the picture that a caption asks for is among those that lie nearest to what was made for it."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxgen.errors import UserError, check_field
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.view import View, as_shown, finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Where the right picture stands among all real ones, those of both splits, by mean squared difference of pixels.

    A sample is made for each test example in turn. `retrieval_1` and `retrieval_10` are the shares of samples whose
    right picture is the nearest, or among the 10 nearest; `…_shuffled` are the same where each sample is held against
    the picture of another caption, which shows what chance and a good likeness to any picture give.
    """

    samples: int = 512
    """Samples to draw; test examples at most."""
    within: int = 10
    """Pictures that count as near."""

    def __post_init__(self) -> None:
        check_field(self, "samples", self.samples >= 2, "at least 2")
        check_field(self, "within", self.within >= 1, "at least 1")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError where there are fewer than two test examples.
        """
        if outlook.rows["test"] < 2:
            raise UserError("Retrieval needs two test examples or more, to hold samples against each other's")
        return self._names()

    def measure(self, view: View) -> dict[str, Any]:
        """Return the shares by name.

        Raises UserError for samples that are not finite.
        """
        train, test = (as_shown(view.rows(split).image) for split in ("train", "test"))
        n = min(self.samples, len(test))
        made = as_shown(finite(view.samples(n)).image)
        gallery = np.concatenate([train, test])
        right = len(train) + np.arange(n)
        other = len(train) + np.roll(np.arange(n), n // 2)
        distance = squared(made, gallery)
        result: dict[str, Any] = {}
        for name, wanted in (("", right), ("_shuffled", other)):
            rank = ranks(distance, wanted)
            result |= {f"retrieval_1{name}": float((rank == 0).mean())}
            result |= {f"retrieval_{self.within}{name}": float((rank < self.within).mean())}
        protocol = {"samples": n, "pictures": len(gallery), "distance": "mean squared difference of pixels"}
        return result | {"protocol": view.protocol | {"retrieval": protocol}}

    def _names(self) -> list[str]:
        return [f"retrieval_{k}{name}" for name in ("", "_shuffled") for k in (1, self.within)]


def squared(a: Float[np.ndarray, "n *s"], b: Float[np.ndarray, "m *s"]) -> Float[np.ndarray, "n m"]:
    """Return the mean squared difference of each row of a to each of b."""
    flat_a, flat_b = (x.reshape(len(x), -1).astype(np.float64) for x in (a, b))
    whole = (flat_a**2).sum(1)[:, None] + (flat_b**2).sum(1)[None] - 2 * flat_a @ flat_b.T
    return np.maximum(whole, 0) / flat_a.shape[1]


def ranks(distance: Float[np.ndarray, "n m"], wanted: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Return how many columns of each row are nearer than the one that is wanted."""
    own = np.take_along_axis(distance, wanted[:, None], 1)
    return (distance < own).sum(1)
