"""Whether a picture shows what its caption asks for: the laws of the metrics that say so."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data.emoji import Emoji
from jaxgen.errors import UserError
from jaxgen.metrics.emoji_people import EmojiPeopleRead
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.retrieval import Retrieval, ranks, squared
from jaxgen.metrics.view import Samples


@dataclasses.dataclass(frozen=True)
class Shown:
    """A view of samples that are given."""

    made: np.ndarray
    train: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...] = ()
    protocol = {"seed": 0}  # noqa: RUF012

    def samples(self, n, like=None):
        return Samples(self.made[:n], None)

    def rows(self, split):
        return Samples(getattr(self, split), None)

    def log_likelihood(self, images, label, *, steps, sigma_min, sigma_max, probes):
        raise NotImplementedError

    def map(self, f, images):
        return np.concatenate([np.asarray(jax.jit(f)(jnp.asarray(part))) for part in np.array_split(images, 4)])


@pytest.fixture(scope="module")
def people() -> np.ndarray:
    examples = Emoji(split="held_out").open()
    return np.stack([examples[i]["image"] for i in range(len(examples))]).astype(np.float32) / 127.5 - 1


def pictures(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (n, 4, 4, 3)).astype(np.float32)


def test_the_truth_is_its_own_nearest_picture():
    train, test = pictures(30, 0), pictures(20, 1)
    found = Retrieval(within=3).measure(Shown(test, train, test))
    assert found["retrieval_1"] == found["retrieval_3"] == 1.0
    assert found["retrieval_1_shuffled"] == 0.0
    assert found["protocol"]["retrieval"]["pictures"] == 50


def test_noise_retrieves_by_chance():
    train, test = pictures(900, 0), pictures(100, 1)
    found = Retrieval(within=100).measure(Shown(pictures(100, 2), train, test))
    assert 0.02 < found["retrieval_100"] < 0.25  # 0.1 by chance
    assert found["retrieval_1"] < 0.05


def test_ranks_and_distances_are_those_of_a_loop():
    a, b = pictures(5, 0), pictures(7, 1)
    distance = squared(a, b)
    np.testing.assert_allclose(distance, [[np.square(x - y).mean() for y in b] for x in a], rtol=1e-5)
    wanted = np.array([0, 6, 3, 2, 1])
    expected = [sorted(range(7), key=lambda j, i=i: distance[i, j]).index(k) for i, k in enumerate(wanted)]
    assert ranks(distance, wanted).tolist() == expected


def test_people_are_read_back(people):
    found = EmojiPeopleRead().measure(Shown(people, people[:5], people))
    assert found["readback_tone"] == found["readback_gender"] == 1.0
    assert found["readback_tone_shuffled"] < 0.4
    assert found["readback_gender_shuffled"] < 0.6
    noise = np.random.default_rng(0).uniform(-1, 1, people.shape).astype(np.float32)
    assert EmojiPeopleRead().measure(Shown(noise, people[:5], people))["readback_tone"] < 0.4


def test_what_cannot_be_read_is_refused(people):
    outlook = Outlook(
        classes=(),
        shape=(16, 32, 3),
        rows={"train": 4, "test": 96},
        asked_for_class=False,
        has_density=False,
        model="M",
    )
    with pytest.raises(UserError, match="square pictures in RGB, not with 16x32x3"):
        EmojiPeopleRead().check(outlook)
    with pytest.raises(UserError, match="two test examples"):
        Retrieval().check(dataclasses.replace(outlook, rows={"train": 4, "test": 1}))
    with pytest.raises(UserError, match="the test data has 95 examples"):
        EmojiPeopleRead().measure(Shown(people, people[:5], people[1:]))
