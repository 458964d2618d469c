"""One folder for training and testing: a file's name decides on which side it is, so that new files move no old one."""

import collections
import hashlib
from collections.abc import Sequence
from typing import Literal

from jaxgen.data.files import composed
from jaxgen.errors import UserError

Side = Literal["train", "test"]


def on_side(names: Sequence[str], side: Side | None, share: float, seed: int) -> list[int]:
    """Return the positions of the names on this side; about `share` of all are on "train". None returns all.

    Raises UserError for a share outside 0..1, and where a side is left without any.
    """
    if side is None:
        return list(range(len(names)))
    if side not in ("train", "test"):
        raise UserError(f"split is {side!r}; it is 'train', 'test' or None for all")
    if not 0 < share < 1:
        raise UserError(f"share is {share}; it must be above 0 and below 1, such as 0.9")
    train = [_place(name, seed) < share for name in names]
    if names and (all(train) or not any(train)):
        empty = "test" if all(train) else "train"
        raise UserError(
            f"of {len(names)} examples, share={share} and seed={seed} leave none for {empty}: choose another seed, "
            "or a share nearer 0.5"
        )
    return [i for i, trained in enumerate(train) if trained == (side == "train")]


def check_classes(labels: Sequence[int], kept: Sequence[int], side: Side | None, classes: Sequence[str]) -> None:
    """Raise UserError if a class that has examples has none on the training side."""
    if side is None:
        return
    chosen = set(kept)
    train = {labels[i] for i in range(len(labels)) if (i in chosen) == (side == "train")}
    for label, count in sorted(collections.Counter(labels).items()):
        if label not in train:
            raise UserError(
                f"class {classes[label]!r} has {count} example{'s' if count > 1 else ''}, none of them on the training "
                "side of the split; choose another seed or a larger share, or add pictures"
            )


def _place(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on the name and the seed only."""
    digest = hashlib.sha256(f"{seed}/{composed(name)}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
