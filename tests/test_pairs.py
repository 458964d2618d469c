"""Restoration by pairs: what damages images, the photographs, and the objective's own rules (laws: test_laws.py)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from jaxgen.adversarial.penalties import R1
from jaxgen.commands.predict import preparation
from jaxgen.data import batches
from jaxgen.data.augment import Unlabelled
from jaxgen.data.bicubic import shrinking, shrunk
from jaxgen.data.damage import Age, Shrink
from jaxgen.data.photographs import Photographs
from jaxgen.errors import UserError
from jaxgen.metrics.reconstruction import psnr, psnr_y, ssim_y
from jaxgen.models.super_resolution import Compact
from jaxgen.objectives.restoration import Restoration
from jaxgen.program import Program
from jaxgen.runs.restore import Restored
from jaxgen.state import State


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def test_bicubic_shrinking_keeps_constants_and_ramps_and_agrees_with_jax_inside():
    for n, factor in ((12, 2), (24, 3), (32, 4)):
        matrix = shrinking(n, factor)
        np.testing.assert_allclose(matrix.sum(1), 1)
        inside = slice(2, -2)
        centres = (np.arange(n // factor) + 0.5) * factor - 0.5
        np.testing.assert_allclose((matrix @ np.arange(n))[inside], centres[inside])
        by_jax = jax.image.resize(jnp.eye(n), (n // factor, n), "cubic")
        np.testing.assert_allclose(matrix[inside], by_jax[inside], atol=1e-6)
    assert np.all(shrunk(np.full((8, 8, 3), 77, np.uint8), 2) == 77)


def test_what_is_damaged_stays_as_target():
    example = {"image": picture(64, 48)}
    small_one = Shrink(2)(np.random.default_rng(1), example)
    assert small_one["image"].shape == (32, 24, 3)
    np.testing.assert_array_equal(small_one["target"], example["image"])
    again = [Age()(np.random.default_rng(1), example)["image"] for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert np.abs(again[0].astype(float) - example["image"]).mean() > 10
    names = [field.name for field in dataclasses.fields(Age)]
    untouched = Age(**dict.fromkeys(names, (0.0, 0.0)))
    np.testing.assert_array_equal(untouched(np.random.default_rng(1), example)["image"], example["image"])


@pytest.mark.parametrize(
    ("transform", "example", "words"),
    [
        (Shrink(3), {"image": picture(8, 9)}, r"Shrink\(3\): an image of 8x9 does not divide"),
        (Shrink(2), {"image": picture(8, 8), "target": picture(8, 8)}, "has a `target` already"),
        (Shrink(2), {"image": picture(8, 8).astype(np.float32)}, "Shrink damages bytes; the image is float32"),
        (Age(), {"image": picture(8, 8, 1)}, r"this image has 1 channel\(s\)"),
    ],
)
def test_what_cannot_be_damaged_is_refused(transform, example, words):
    with pytest.raises(UserError, match=words):
        transform(np.random.default_rng(0), example)


def test_ranges_that_are_none_are_refused():
    with pytest.raises(UserError, match=r"fading"):
        Age(fading=(0.5, 1.5))


def test_photographs_to_test_are_others_and_lie_side_by_side():
    train, test = (Photographs(split=split, size=128, stride=96) for split in ("train", "test"))
    assert not set(train.photographs()) & set(test.photographs())
    seen, held = train.open(), test.open()
    assert len(seen) > 100
    assert len(held) == 2 * 3 + 3 * 4 + 3 * 5 + 3 * 5
    assert {seen[i]["image"].shape for i in range(0, len(seen), 40)} == {(128, 128, 3)}
    np.testing.assert_array_equal(held[1]["image"], test.photographs()["chelsea"][:128, 128:256])


def test_luma_is_measured_inside_the_border_in_studio_swing():
    x = jnp.asarray(np.random.default_rng(0).uniform(-0.5, 0.5, (1, 24, 24, 3)), jnp.float32)
    brighter = x + 2 / 255  # one level in each colour is 219/255 of one in Y
    expected = 20 * np.log10(255 / (219 / 255))
    assert psnr_y(x, brighter, 2) == pytest.approx(expected, abs=0.02)
    assert psnr(x, brighter) == pytest.approx(48.13, abs=0.02)
    framed = x.at[:, :2].set(1.0).at[:, -2:].set(1.0).at[:, :, :2].set(1.0).at[:, :, -2:].set(1.0)
    assert ssim_y(x, framed, 2) == pytest.approx(1.0)
    with pytest.raises(UserError, match="a border of 12 pixels leaves nothing of images of 24×24"):
        psnr_y(x, x, 12)


def objective() -> Restoration:
    made = small.restoration().objective
    assert isinstance(made, Restoration)
    return made


def test_an_untrained_net_is_measured_beside_its_input():
    experiment = small.restoration()
    program = Program.of(
        dataclasses.replace(experiment, objective=dataclasses.replace(objective(), discriminator=None))
    )
    state = program.init()
    batch = next(iter(batches.test_batches(experiment.test.source.open(), experiment.test.transforms, batch_size=8)))
    sums = program.objective.evaluate(state, jax.tree.map(jnp.asarray, batch), jax.random.key(0))
    found = {name: x.result() for name, x in sums.items()}
    assert set(found) == {f"{kind}{of}" for kind in ("psnr", "psnr_y", "ssim_y") for of in ("", "_input")}
    assert found["psnr"] < found["psnr_input"]


@pytest.mark.parametrize("side", [(10, 14), (9, 7)])
def test_pictures_of_any_size_come_back_twice_as_large(side):
    module = Compact(scale=2, features=4, convolutions=1, folded=4)
    net = dataclasses.replace(objective().net, module=module)
    made = dataclasses.replace(objective(), net=net, discriminator=None)
    image = jnp.asarray(picture(*side)[None] / 127.5 - 1, jnp.float32)
    spec = {
        "image": jax.ShapeDtypeStruct((8, 8, 8, 3), np.uint8),
        "target": jax.ShapeDtypeStruct((8, 16, 16, 3), np.uint8),
    }
    state = made.init(jax.random.key(0), spec)
    found = made.predict(lambda x: made.forward(state, jnp.asarray(x)), np.asarray(image)).pixels
    np.testing.assert_allclose(found, np.repeat(np.repeat(image, 2, 1), 2, 2), atol=1e-5)


def test_data_that_do_not_fit_are_refused():
    image, target = ((8, 16, 16, 3), (8, 32, 32, 3))
    of = lambda **shapes: {name: jax.ShapeDtypeStruct(shape, np.uint8) for name, shape in shapes.items()}  # noqa: E731
    objective().check(of(image=image, target=target), ())
    with pytest.raises(UserError, match=r"the data has image without a `target`; end the transforms.*Shrink\(2\)"):
        objective().check(of(image=image), ())
    with pytest.raises(UserError, match="images of 32×32×3, but their targets have 16×16×3"):
        objective().check(of(image=image, target=image), ())
    with pytest.raises(UserError, match="R1 has no gamma"):
        dataclasses.replace(objective(), penalties=(R1(),)).check(of(image=image, target=target), ())


def test_pictures_to_predict_are_not_damaged_first():
    experiment = small.restoration()
    program = Program.of(
        dataclasses.replace(experiment, objective=dataclasses.replace(objective(), discriminator=None))
    )
    run = Restored(program=program, step=0, state=State(step=jnp.int32(0), nets={}, extra={}))
    assert Shrink(factor=2) in experiment.test.transforms
    assert preparation(run, own_size=False) == (Unlabelled(),)
    assert preparation(run, own_size=True) == ()
