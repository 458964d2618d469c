"""Read-back of scenes: true masks read as their captions say, and other captions do not."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data import render
from jaxgen.data.scenes import PAIRS, Scenes
from jaxgen.errors import UserError
from jaxgen.metrics import read_back
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.read_back import Asked, ScenesRead, Thing, bound, parsed, shares, things
from jaxgen.metrics.view import Samples

RED3, BLUE7, PINK1 = (
    Thing(("red", 3), (0, 0, 5, 8)),
    Thing(("blue", 7), (20, 0, 25, 8)),
    Thing(("pink", 1), (20, 30, 25, 38)),
)
CAPTION = "a red 3 left of a blue 7, which is above a pink 1"


@pytest.fixture(scope="module")
def drawn() -> list[render.Scene]:
    return list(render.scenes("test", 48))


def test_a_caption_is_parsed() -> None:
    asked = parsed(CAPTION)
    assert asked == Asked((("red", 3), ("blue", 7), ("pink", 1)), ("left of", "above"))
    assert parsed("an orange 0").relations == ()
    for wrong in ("a cat", "a red 3 a blue 7", ""):
        with pytest.raises(UserError, match="is no caption of scenes"):
            parsed(wrong)


def test_hand_made_pictures_are_read_by_hand() -> None:
    asked = [parsed(CAPTION)]
    assert shares(asked, [(RED3, BLUE7, PINK1)]) == dict.fromkeys(read_back.NAMES, 1.0)
    swapped = Thing(("blue", 3), RED3.box), Thing(("red", 7), BLUE7.box), PINK1
    found = shares(asked, [swapped])
    assert (found["presence"], found["colour"], found["binding"], found["exact"]) == (1, 1, 1 / 3, 0)
    assert np.isnan(found["relation"])
    mirrored = Thing(RED3.pair, (40, 0, 45, 8)), BLUE7, PINK1
    found = shares(asked, [mirrored])
    assert (found["binding"], found["relation"], found["exact"]) == (1, 0.5, 0)
    assert shares(asked, [(RED3, BLUE7, PINK1, PINK1)])["exact"] == 0  # nothing else may be there
    assert shares(asked, [()])["binding"] == 0


def test_one_thing_answers_for_one_only() -> None:
    asked = [parsed("a red 3 left of a red 3")]
    assert shares(asked, [(RED3,)])["binding"] == 0.5
    twice = shares(asked, [(RED3, Thing(RED3.pair, (30, 0, 35, 8)))])
    assert twice["binding"] == twice["exact"] == 1  # which of the two is meant nobody can say


def test_held_out_pairs_are_counted_alone() -> None:
    asked = [parsed(CAPTION)]
    assert bound(asked, [(RED3,)], {("red", 3)}) == 1
    assert bound(asked, [(RED3,)], {("blue", 7)}) == 0
    assert np.isnan(bound(asked, [(RED3,)], {("white", 0)}))


def test_true_masks_are_read_as_their_captions_say(drawn: list[render.Scene]) -> None:
    asked = [parsed(scene.caption) for scene in drawn]
    found = [things(np.asarray(scene.mask), np.asarray(scene.image)) for scene in drawn]
    read = shares(asked, found)
    assert min(read.values()) > 0.95, read
    shuffled = shares(asked[7:] + asked[:7], found)
    assert shuffled["binding"] < 0.2
    assert shuffled["exact"] == 0


class Oracle(nn.Module):
    """Sees a mask that is hidden in the red channel's lowest levels: a net without a parameter that is read."""

    masks: tuple[tuple[float, int], ...] = ()

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool) -> jax.Array:
        self.param("unused", nn.initializers.zeros, (1,))
        ids = jnp.round(jnp.clip((image[..., 0] + 1) * 127.5, 0, 10)).astype(jnp.int32)
        return jax.nn.one_hot(ids, 11)


@dataclasses.dataclass(frozen=True)
class Read:
    """Weights that are given."""

    def read(self, variables: object) -> dict:
        return {"params": {"unused": np.zeros(1, np.float32)}}


@dataclasses.dataclass(frozen=True)
class Shown:
    """A view of samples that are given."""

    made: np.ndarray
    test: np.ndarray
    classes: tuple[str, ...] = ()
    protocol = {"seed": 0}  # noqa: RUF012

    def samples(self, n, like=None):
        return Samples(self.made[:n], None)

    def rows(self, split):
        return Samples(self.test, None)

    def log_likelihood(self, images, label, *, steps, sigma_min, sigma_max, probes):
        raise NotImplementedError

    def map(self, f, images):
        return np.asarray(f(jnp.asarray(images)))


def test_the_metric_reads_samples_truth_and_others(drawn, monkeypatch) -> None:
    """Pictures whose red channel is their mask: digits are read, colours are whatever they then are."""
    pictures = np.stack([np.asarray(scene.image) for scene in drawn])
    pictures[..., 0] = np.stack([np.asarray(scene.mask) for scene in drawn])
    image = pictures.astype(np.float32) / 127.5 - 1
    monkeypatch.setattr(read_back, "captions_of", lambda source: tuple(scene.caption for scene in drawn))
    metric = ScenesRead(net=Oracle(), weights=Read(), truth=Scenes("held_out", PAIRS), samples=36)
    outlook = Outlook((), (64, 64, 3), {"train": 9, "test": 48}, asked_for_class=False, has_density=False, model="x")
    found = metric.measure(Shown(image[:36], image))
    names = set(metric.check(outlook))
    assert names == found.keys() - {"protocol"}
    assert found["scenes_presence"] == found["scenes_presence_real"] > 0.95
    assert found["scenes_presence_shuffled"] < 0.6
    assert found["protocol"]["read_back"]["samples"] == 36
    with pytest.raises(UserError, match="and the test data has 47"):
        metric.measure(Shown(image[:36], image[:47]))


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(UserError, match=r"FromRun\(FOLDER\) or Safetensors"):
        ScenesRead(net=Oracle(), weights="runs/x")
    with pytest.raises(UserError, match="at least 2"):
        ScenesRead(net=Oracle(), weights=Read(), samples=1)
