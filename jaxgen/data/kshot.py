"""Few examples of each class: k shots, drawn from any data with labels, and others that they share nothing with."""

import dataclasses

import numpy as np

from jaxgen.data.fake import FakeLabels
from jaxgen.data.source import Examples, Fakeable, Shape, Source, described, name_of
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class KShot:
    """k examples of each class of a source, in the source's order.

    The seed decides an order of each class; these are k in a row of it, from number `after` on. So the shots of a
    smaller k are among those of a larger one, and KShot(…, k=m, after=k) shares none with KShot(…, k=k).

    Raises UserError when opened if examples have no label, or a class has too few.
    """

    source: Source
    k: int
    """Examples of each class."""
    seed: int = 0
    after: int = 0
    """Examples of each class to leave out before these."""

    def __post_init__(self) -> None:
        check_field(self, "k", self.k >= 1, "at least 1")
        check_field(self, "after", self.after >= 0, "0 or more")
        check_field(self, "seed", self.seed >= 0, "0 or more")

    def open(self) -> Examples:
        examples = self.source.open()
        if not len(examples) or "label" not in examples[0]:
            raise UserError("KShot: the source's examples have no label; take one with classes, such as Folder")
        labels = np.array([examples[i]["label"] for i in range(len(examples))])
        chosen = [self._of(name, np.flatnonzero(labels == k), k) for k, name in enumerate(examples.classes)]
        return _Chosen(examples, np.sort(np.concatenate(chosen)).tolist())

    def shape(self) -> Shape | None:
        return self.source.shape() if isinstance(self.source, Fakeable) else None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLabels.of(shape, classes, count)

    def _of(self, name: str, places: np.ndarray, label: int) -> np.ndarray:
        """The places of one class's shots, of all its places."""
        end = self.after + self.k
        if len(places) < end:
            beyond = f" after the first {self.after}" if self.after else ""
            raise UserError(
                f"KShot: {self.k} of each class{beyond}, and class {name!r} has {len(places)} in all; take fewer"
            )
        # Each class has a stream of its own, so that its shots do not depend on the others' numbers.
        order = np.random.default_rng((self.seed, label)).permutation(len(places))
        return places[order[self.after : end]]


class _Chosen:
    """The examples at these places."""

    def __init__(self, examples: Examples, chosen: list[int]):
        self.classes = examples.classes
        self.origin, self.notes = described(examples)
        self._examples, self._chosen = examples, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Example:
        return self._examples[self._chosen[index]]

    def name(self, index: int) -> str:
        return name_of(self._examples, self._chosen[index])
