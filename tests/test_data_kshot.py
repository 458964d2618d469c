"""k shots: so many of each class, a function of the seed, and others that they share nothing with."""

import dataclasses

import numpy as np
import pytest

from jaxgen.config import codec
from jaxgen.data.digits import Digits
from jaxgen.data.fake import FakeLabels
from jaxgen.data.kshot import KShot
from jaxgen.data.source import Examples, Source
from jaxgen.errors import UserError
from jaxgen.typing import Example


@dataclasses.dataclass(frozen=True)
class Uneven:
    """Example i shows i; the classes "a", "b" and "c" have 12, 7 and 5 examples."""

    def open(self) -> "Uneven":
        return self

    @property
    def classes(self) -> tuple[str, ...]:
        return "a", "b", "c"

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> Example:
        label = (index >= 12) + (index >= 19)
        return {"image": np.full((2, 2, 1), index, np.uint8), "label": np.array(label, np.int32)}


def shown(source: Source) -> list[int]:
    examples = source.open()
    return [int(examples[i]["image"][0, 0, 0]) for i in range(len(examples))]


@pytest.mark.parametrize(("k", "after"), [(1, 0), (5, 0), (3, 2)])
@pytest.mark.parametrize("seed", [0, 7])
def test_each_class_has_k_examples_which_the_seed_decides(k, after, seed):
    source = KShot(source=Uneven(), k=k, seed=seed, after=after)
    examples = source.open()
    labels = [int(examples[i]["label"]) for i in range(len(examples))]
    assert [labels.count(label) for label in range(3)] == [k, k, k]
    assert len(set(shown(source))) == 3 * k
    assert shown(source) == sorted(shown(source)) == shown(source)


def test_fewer_shots_are_among_more_and_those_after_are_others():
    whole = set(shown(KShot(source=Uneven(), k=5)))
    for k in range(1, 5):
        few, rest = (set(shown(KShot(source=Uneven(), k=n, after=a))) for n, a in ((k, 0), (5 - k, k)))
        assert few | rest == whole
        assert not few & rest


def test_another_seed_draws_others_and_all_are_drawn_alike():
    counts = np.zeros(24)
    for seed in range(600):
        counts[shown(KShot(source=Uneven(), k=2, seed=seed))] += 1
    expected = 600 * 2 / np.repeat([12, 7, 5], [12, 7, 5])
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_a_class_with_fewer_is_refused():
    with pytest.raises(UserError, match=r"KShot: 6 of each class, and class 'c' has 5 in all; take fewer"):
        KShot(source=Uneven(), k=6).open()
    with pytest.raises(UserError, match=r"KShot: 4 of each class after the first 2, and class 'c' has 5 in all"):
        KShot(source=Uneven(), k=4, after=2).open()
    for wrong in ({"k": 0}, {"k": 1, "after": -1}, {"k": 1, "seed": -1}):
        with pytest.raises(UserError, match="it must be"):
            KShot(source=Uneven(), **wrong)
    with pytest.raises(UserError, match="no label; take one with classes"):
        KShot(source=FakeLabels(height=2, width=2, classes=0), k=1).open()


def test_shots_travel_as_their_source_does():
    source = KShot(source=Digits(), k=3, seed=1)
    examples = source.open()
    assert isinstance(source, Source)
    assert isinstance(examples, Examples)
    assert (len(examples), examples.classes[9], source.shape()) == (30, "9", (8, 8, 1))
    assert codec.decode(codec.encode(source)) == source
    assert len(source.fake((4, 4, 1), 2, 6).open()) == 6
