"""Blur with borders, and motion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxgen.errors import UserError
from jaxgen.restoration.motion import Motion, line
from jaxgen.restoration.operators import norm
from jaxgen.restoration.separable import Blur

borders = pytest.mark.parametrize("border", ["wrap", "mirror"])
SCIPY = {"wrap": "wrap", "mirror": "reflect"}
X = jax.random.normal(jax.random.key(0), (1, 12, 17, 2))


@borders
@pytest.mark.parametrize("sigma", [0.6, 2.0, 5.5])
def test_blur_at_the_border_is_that_of_scipy(sigma, border):
    theirs = ndimage.gaussian_filter(np.asarray(X, np.float64), (0, sigma, sigma, 0), mode=SCIPY[border], truncate=8.5)
    np.testing.assert_allclose(Blur(sigma=sigma, border=border).forward(X), theirs, atol=2e-5)


@borders
@pytest.mark.parametrize("motion", [(5.0, 0.0), (1.0, 45.0), (7.5, 30.0), (11.0, -80.0), (9.0, 135.0)])
def test_motion_is_the_mean_along_a_line(motion, border):
    operator = Motion(*motion, border=border)
    kernel = line(*motion)
    assert kernel.sum() == pytest.approx(1)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-12)
    places = np.arange(len(kernel)) - len(kernel) // 2
    # Its second moments are the line's, L²/12 along its direction, and the interpolation's.
    across = (kernel.sum(0) * places**2).sum()
    line_only = motion[0] ** 2 / 12 * np.cos(np.radians(motion[1])) ** 2
    assert line_only - 1e-9 <= across <= line_only + 1 / 4 + 1e-9
    # Weights are known by another way: many points of the line, each shared out among four pixels.
    t = np.linspace(-0.5, 0.5, 20_001) * motion[0]
    rows, columns = -t * np.sin(np.radians(motion[1])), t * np.cos(np.radians(motion[1]))
    near = lambda at: np.maximum(0, 1 - np.abs(places[:, None] - at))  # noqa: E731
    np.testing.assert_allclose(kernel, near(rows) @ near(columns).T / len(t), atol=2e-4)
    theirs = ndimage.convolve(np.asarray(X[0, ..., 0], np.float64), kernel, mode=SCIPY[border])
    np.testing.assert_allclose(operator.forward(X)[0, ..., 0], theirs, atol=2e-5)


@borders
def test_motion_has_an_adjoint_and_takes_no_more_than_there_is(border):
    operator = Motion(length=6.3, angle=25.0, border=border)
    assert operator.measures(X.shape[1:]) == X.shape[1:]
    y = jax.random.normal(jax.random.key(1), X.shape)
    np.testing.assert_allclose((operator.forward(X) * y).sum(), (X * operator.adjoint(y)).sum(), rtol=1e-4)
    np.testing.assert_allclose(operator.forward(jnp.ones_like(X)), 1, atol=1e-5)
    assert norm(operator, X)[0] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(Motion(length=1e-3, border=border).forward(X), X, atol=1e-3)


@pytest.mark.parametrize(
    ("operator", "says"),
    [
        (Motion(length=0.0), "above 0"),
        (Motion(length=13.0), "leaves nothing"),
        (Motion(length=3.0, angle=float("nan")), "degrees"),
    ],
)
def test_what_is_no_blur_is_said(operator, says):
    with pytest.raises(UserError, match=says):
        operator.measures(X.shape[1:])
