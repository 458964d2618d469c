"""PSNR and SSIM, against scikit-image and cases known by hand."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from golden.weights import image

from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import Mean, merge, results
from jaxgen.metrics.reconstruction import measures_ssim, psnr, ssim

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "reconstruction.npz")


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_and_ssim_are_those_of_scikit_image(channels):
    x, noise = image(19, 24, channels, 4), image(20, 24, channels, 4)[:, :19]
    y = 0.8 * x + 0.3 * noise
    wanted = np.stack([GOLDEN[f"{channels}_{i}"] for i in range(4)])
    np.testing.assert_allclose(psnr(jnp.asarray(x), jnp.asarray(y)), wanted[:, 0], atol=1e-4)
    np.testing.assert_allclose(ssim(jnp.asarray(x), jnp.asarray(y)), wanted[:, 1], atol=1e-5)


def test_one_level_off_everywhere_is_48_decibels():
    x = jnp.zeros((1, 4, 4, 3))
    np.testing.assert_allclose(psnr(x, x + 1 / 127.5), 20 * np.log10(255), atol=1e-4)


def test_equal_images_have_a_finite_psnr_and_a_similarity_of_one():
    x = jnp.asarray(image(12, 12))
    np.testing.assert_allclose(psnr(x, x), 10 * np.log10(255**2 * 12 * 12 * 3), atol=1e-4)
    np.testing.assert_allclose(ssim(x, x), 1.0, atol=1e-6)
    # Less than half a level is rounded away, and what overshoots is clipped.
    np.testing.assert_array_equal(
        psnr(jnp.ones((1, 4, 4, 1)), jnp.full((1, 4, 4, 1), 1.7)), psnr(x[:1, :4, :4, :1], x[:1, :4, :4, :1])
    )


def test_an_image_smaller_than_a_window_has_no_ssim():
    x = jnp.zeros((1, 11, 10, 3))
    assert not measures_ssim(x.shape[1:])
    with pytest.raises(UserError, match="11×11; images of 11×10 have none"):
        ssim(x, x)


def test_means_over_batches_merge_to_the_mean_over_all():
    x, y = (jnp.asarray(image(12, 12, batch=n)) for n in (5, 5))
    y = 0.9 * y
    values = psnr(x, y)
    valid = jnp.array([True, True, True, True, False])
    split = merge({"psnr": Mean.of(values[:2], valid[:2])}, {"psnr": Mean.of(values[2:], valid[2:])})
    assert results(split, ())["psnr"] == pytest.approx(float(values[:4].mean()), rel=1e-6)
