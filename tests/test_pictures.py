"""Pictures for people: class colours, and samples laid out on a sheet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.pictures import sheet
from jaxgen.pictures.colours import palette, tint
from jaxgen.typing import IGNORE

MASK = np.array([[[0, 1, 2], [3, 200, IGNORE]]], np.uint8)  # of three classes: two ids of none, and one ignored


def test_class_colours_by_hand():
    image = np.random.default_rng(0).uniform(-1, 1, (1, 2, 3, 3)).astype(np.float32)
    out = tint(image, MASK, 3)
    assert isinstance(out, np.ndarray)
    assert out.dtype == np.float32
    colours = palette(3) / 127.5 - 1
    for place, k in (((0, 0, 1), 1), ((0, 0, 2), 2)):
        assert out[place] == pytest.approx(0.2 * image[place].mean() + 0.8 * colours[k], abs=1e-6)
    for place in ((0, 0, 0), (0, 1, 0), (0, 1, 1)):  # in [0, 1]: half as bright
        assert out[place] + 1 == pytest.approx(0.5 * (image[place] + 1), abs=1e-6)
    assert (out[0, 1, 2] == 1).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_numpy_and_jax_colour_alike(dtype):
    image = np.random.default_rng(0).uniform(-1, 1, (1, 2, 3, 3)).astype(np.float32)
    on_device = jax.jit(lambda x, mask: tint(x, mask, 3))(jnp.asarray(image), jnp.asarray(MASK.astype(dtype)))
    assert isinstance(on_device, jax.Array)
    assert np.asarray(on_device) == pytest.approx(tint(image, MASK.astype(dtype), 3), abs=1e-6)


def test_an_overlay_is_the_tint_in_bytes():
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    out = sheet.overlay(image, MASK[0], 3)
    assert out.dtype == np.uint8
    assert out[0, 1].astype(float) == pytest.approx(0.2 * image[0, 1].mean() + 0.8 * palette(3)[1], abs=0.51)
    assert out[0, 0].astype(float) == pytest.approx(0.5 * image[0, 0], abs=0.51)
    assert (out[1, 2] == 255).all()


@pytest.mark.parametrize(("count", "columns", "rows"), [(9, None, 3), (7, None, 3), (7, 7, 1)])
def test_samples_lie_in_rows(count, columns, rows):
    page = sheet.samples(np.full((count, 8, 8, 1), -1, np.float32), None, (), columns)
    side, gap = 96, sheet.GAP  # of an image that is enlarged
    assert page.shape == (gap + rows * (side + gap), gap + (columns or 3) * (side + gap), 3)
    black = (page == 0).all(-1).sum()
    assert black == count * side * side  # the rest of the last row is blank
    named = sheet.samples(np.ones((3, 8, 8, 3), np.float32), np.array([0, 1, 1]), ("cat", "dog"))
    assert named.shape == (gap + side + 18 + gap, gap + 3 * (side + gap), 3)


def test_points_are_drawn_where_they_lie():
    page = sheet.samples(np.array([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]], np.float32), None, ())
    dark = page.sum(-1) < 700
    assert dark[:30, -30:].any()  # y goes up
    assert dark[-30:, :30].any()
    assert not dark[100:-100].any()
