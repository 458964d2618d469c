"""upfirdn2d and what is made of it: parity with StyleGAN2's and with scipy's, and the laws of a resampling."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from golden.weights import array, image

from jaxgen.errors import UserError
from jaxgen.nn.upfirdn import blur_kernel, downsample2d, upfirdn2d, upsample2d

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "gan_augment.npz")
TAPS = ((1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 3.0, 3.0, 1.0), (1.0, 4.0, 6.0, 4.0, 1.0))


@pytest.mark.parametrize("case", range(len(GOLDEN["upfirdn_cases"])))
def test_matches_the_reference(case):
    rows, columns, up, down, left, right, top, bottom = (int(n) for n in GOLDEN["upfirdn_cases"][case][:-1])
    kernel = jnp.asarray(array(f"kernel {case}", (rows, columns)))
    gain = float(GOLDEN["upfirdn_cases"][case][-1])
    x = jnp.asarray(image(7, 6, 2))
    ours = upfirdn2d(x, kernel, up=up, down=down, pad=(left, right, top, bottom), gain=gain)
    np.testing.assert_allclose(ours, GOLDEN[f"upfirdn_{case}"], atol=2e-6)


@pytest.mark.parametrize(("up", "down", "rows", "columns"), [(1, 1, 3, 4), (2, 1, 4, 3), (1, 2, 5, 2), (3, 2, 4, 4)])
def test_is_the_outer_product_of_scipys(up, down, rows, columns):
    x, vertical, horizontal = image(7, 6, 2), array("rows", (rows,)), array("columns", (columns,))
    theirs = scipy.signal.upfirdn(vertical, x, up, down, axis=1)
    theirs = scipy.signal.upfirdn(horizontal, theirs, up, down, axis=2)
    kernel = jnp.outer(jnp.asarray(vertical), jnp.asarray(horizontal))
    # scipy's is the full convolution, without zeros after the last pixel.
    pad = (columns - 1, columns - up, rows - 1, rows - up)
    np.testing.assert_allclose(upfirdn2d(jnp.asarray(x), kernel, up=up, down=down, pad=pad), theirs, atol=1e-5)


@pytest.mark.parametrize("taps", TAPS)
def test_a_constant_map_stays_so_inside(taps):
    ones, kernel = jnp.ones((1, 8, 6, 1)), blur_kernel(taps)
    small, large = downsample2d(ones, kernel), upsample2d(ones, kernel)
    assert small.shape == (1, 4, 3, 1)
    assert large.shape == (1, 16, 12, 1)
    np.testing.assert_allclose(small[:, 1:-1, 1:-1], 1.0, atol=1e-6)
    np.testing.assert_allclose(large[:, 3:-3, 3:-3], 1.0, atol=1e-6)


@pytest.mark.parametrize(("taps", "factor"), [(TAPS[0], 2), (TAPS[2], 2), (TAPS[1], 3), (TAPS[3], 3)])
def test_enlarging_is_the_adjoint_of_shrinking(taps, factor):
    x, y = jnp.asarray(image(4, 3, 2)), jnp.asarray(image(4 * factor, 3 * factor, 2))
    kernel = blur_kernel(taps)
    one = jnp.vdot(upsample2d(x, kernel, factor), y)
    np.testing.assert_allclose(one, factor**2 * jnp.vdot(x, downsample2d(y, kernel, factor)), rtol=1e-4)


@pytest.mark.parametrize("taps", [TAPS[1], TAPS[2]])
def test_filtering_keeps_the_size_as_scipy_does(taps):
    x, kernel = image(6, 5, 1), blur_kernel(taps) * jnp.asarray([[1.0, 2.0, 0.5, 3.0][: len(taps)]])
    theirs = np.stack([scipy.signal.convolve2d(picture[..., 0], kernel, mode="same") for picture in x])
    kh, kw = kernel.shape
    pad = (kw // 2, (kw - 1) // 2, kh // 2, (kh - 1) // 2)
    np.testing.assert_allclose(upfirdn2d(jnp.asarray(x), kernel, pad=pad)[..., 0], theirs, atol=1e-6)
    np.testing.assert_allclose(upfirdn2d(jnp.asarray(x), kernel, pad=pad, gain=2.0)[..., 0], 2 * theirs, atol=1e-6)


def test_computes_in_the_maps_type():
    assert upsample2d(jnp.ones((1, 2, 2, 1), jnp.bfloat16), blur_kernel()).dtype == jnp.bfloat16


def test_taps_without_a_sum_are_refused():
    with pytest.raises(UserError, match="sum to 0"):
        blur_kernel((1.0, -1.0))
