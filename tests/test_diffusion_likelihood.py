"""Likelihoods against a Gaussian's closed form, and Hutchinson's estimate against the exact divergence."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.likelihood import bits_per_dim, log_likelihood
from jaxgen.diffusion.path import Edm, Flow
from jaxgen.diffusion.sampling_schedules import Rho, UniformTime
from jaxgen.errors import UserError

D = 6
MEAN, STD = 0.3, 0.7
GAUSSIAN = GaussianMixture(means=((MEAN,) * D,), stds=(STD,))
MODES = GaussianMixture(means=((-1.0, 0.0), (0.5, 0.8)), stds=(0.4, 0.5))


@functools.partial(jax.jit, static_argnames=("denoise", "steps", "probes"))
def likelihood(denoise: Callable, steps: int, x: jax.Array, own: jax.Array, probes: int) -> jax.Array:
    return log_likelihood(denoise, schedule(steps), x, own, probes=probes)


def keys(n: int) -> jax.Array:
    return jax.random.split(jax.random.key(0), n)


def schedule(steps: int) -> np.ndarray:
    return Rho(steps=steps, to_zero=False).sigmas(Edm())


@functools.cache
def gaussian_error(steps: int, exact_prior: bool) -> float:
    with jax.enable_x64(True):
        x = jnp.asarray(MEAN + STD * np.random.RandomState(0).standard_normal((4, D)))
        mean, variance = (MEAN, STD**2) if exact_prior else (0.0, 0.0)
        found = jax.jit(
            lambda x: log_likelihood(
                GAUSSIAN.denoise, schedule(steps), x, keys(4), probes=0, mean=mean, variance=variance
            )
        )(x)
        return float(np.abs(found - GAUSSIAN.log_density(x, 0.002)).max())


def test_a_gaussian_s_density_is_met_with_order_2() -> None:
    coarse, fine = gaussian_error(64, True), gaussian_error(128, True)
    assert fine < 0.05
    assert abs(math.log2(coarse / fine) - 2) < 0.15


def test_the_prior_s_error_is_what_the_docstring_says() -> None:
    change = abs(gaussian_error(128, False) - gaussian_error(128, True))
    # On each axis a normal number's share of it, whose size is below 3.
    assert 1e-4 < change < 3 * D * (MEAN / 80 + STD**2 / (2 * 80**2))


def test_a_mixture_s_density() -> None:
    x = MODES.sample(jax.random.key(1), 8)
    found = likelihood(MODES.denoise, 256, x, keys(8), probes=0)
    np.testing.assert_allclose(found, MODES.log_density(x, 0.002), atol=0.03)


def skewed(x: jax.Array, sigma: jax.Array) -> jax.Array:
    """A linear denoiser with large entries off its diagonal: there Hutchinson's estimate has variance."""
    matrix = jnp.asarray([[0.5, 0.4, 0.0], [0.4, 0.2, -0.3], [0.0, -0.3, 0.1]], x.dtype)
    return (matrix[None] * x[:, None]).sum(-1) / (1 + sigma**2)


def test_hutchinson_is_unbiased() -> None:
    n = 4000
    x = jnp.broadcast_to(jnp.asarray([0.3, -0.2, 0.5]), (n, 3))
    exact = float(likelihood(skewed, 16, x[:1], keys(1), probes=0)[0])
    one, four = (np.asarray(likelihood(skewed, 16, x, keys(n), probes=probes)) for probes in (1, 4))
    for found in (one, four):
        assert abs(found.mean() - exact) < 4 * found.std() / math.sqrt(n)
    # Four probes have a quarter of the variance; of so many draws its ratio is known to about 5 %.
    assert 3.4 < one.var() / four.var() < 4.7


def test_a_diagonal_derivative_needs_one_probe() -> None:
    x = jnp.asarray(MEAN + STD * np.random.RandomState(0).standard_normal((4, D)), jnp.float32)
    exact, probed = (likelihood(GAUSSIAN.denoise, 32, x, keys(4), probes=probes) for probes in (0, 1))
    np.testing.assert_allclose(exact, probed, rtol=1e-4)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    x = MODES.sample(jax.random.key(1), 8)
    together = likelihood(MODES.denoise, 16, x, keys(8), probes=2)
    alone = likelihood(MODES.denoise, 16, x[3:4], keys(8)[3:4], probes=2)
    np.testing.assert_allclose(together[3:4], alone, rtol=1e-4, atol=1e-4)


def test_bits_of_uniform_bytes() -> None:
    # Uniform over [-1, 1] is a density of 1/2 on each axis, up to the half step at either end: 8 bits.
    dims = 12
    nats = jnp.full((3,), dims * math.log(127.5 / 256))
    np.testing.assert_allclose(bits_per_dim(nats, dims), 8.0, rtol=1e-6)


@pytest.mark.parametrize(
    "sigmas", [Rho(steps=4).sigmas(Edm()), UniformTime(steps=4).sigmas(Flow())[:-1]], ids=["zero", "infinite"]
)
def test_a_schedule_without_density_is_refused(sigmas: np.ndarray) -> None:
    with pytest.raises(UserError, match="finite levels above 0"):
        log_likelihood(GAUSSIAN.denoise, sigmas, jnp.zeros((1, D)), keys(1), probes=0)
