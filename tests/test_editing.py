"""Editing of pictures, on data whose exact denoiser is known: closed forms, orders, ends; and in objectives."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_text_conditions import IMAGES, LATENT, PLAIN, TOKENS, started

from jaxgen.diffusion.editing import edit, invert, level, truncated
from jaxgen.diffusion.flow import FlowHeun, FlowMidpoint
from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.path import Edm, Flow
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho, UniformTime
from jaxgen.diffusion.solvers import Euler, Heun, sample, start
from jaxgen.diffusion.stochastic import EulerMaruyama
from jaxgen.errors import UserError
from jaxgen.objective import Editable

MEAN, STD, LEVEL = 0.7, 0.5, 0.8
GAIN = STD / math.sqrt(STD**2 + LEVEL**2)
GAUSSIAN = GaussianMixture(means=((MEAN,),), stds=(STD,))
MIXTURE = GaussianMixture(means=((-1.0, 0.3), (1.0, -0.5)), stds=(0.4, 0.5))
PICTURE = 2.5


def keys_of(n: int):
    return jax.random.split(jax.random.key(1), n)


def edited(solver, x0, noise, sigma: float, data: GaussianMixture = GAUSSIAN, steps: int = 200):
    how = Sampling(solver=solver, schedule=Rho(steps=steps, sigma_max=20.0))
    net = lambda x, sigma, condition: data.denoise(x, sigma)  # noqa: E731
    return edit(how, net, Edm(), x0, noise, keys_of(len(x0)), sigma=sigma, condition={})


def test_strength_is_the_share_of_noise():
    assert [level(s) for s in (0.0, 0.25, 0.5, 1.0)] == [0.0, 1 / 3, 1.0, math.inf]
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(UserError, match=r"strength is .*; it lies in 0\.\.1"):
            level(wrong)


@pytest.mark.parametrize(
    ("sigma", "levels"),
    [
        (0.0, [0.0]),
        (0.5, [0.5, 0.0]),
        (2.0, [2.0, 1.0, 0.0]),
        (1.0, [1.0, 0.0]),
        (1.0000001, [1.0000001, 0.0]),  # rather than a step of almost no length
        (4.0, [4.0, 2.0, 1.0, 0.0]),
        (math.inf, [4.0, 2.0, 1.0, 0.0]),
    ],
)
def test_a_schedule_is_cut_at_a_level(sigma, levels):
    assert truncated(np.array([4.0, 2.0, 1.0, 0.0]), sigma).tolist() == levels


def test_a_schedule_that_ends_in_noise_leaves_less_noise_alone():
    assert truncated(np.array([4.0, 2.0, 0.1]), 0.05).tolist() == [0.1]
    assert truncated(np.array([np.inf, 2.0, 0.0]), 9.0).tolist() == [9.0, 2.0, 0.0]
    assert truncated(np.array([np.inf, 2.0, 0.0]), math.inf)[0] == math.inf


def test_the_ode_draws_a_picture_to_the_data_as_far_as_the_closed_form_says():
    noise = jax.random.normal(jax.random.key(0), (64, 1))
    made = edited(Heun(), jnp.full((64, 1), PICTURE), noise, LEVEL)
    np.testing.assert_allclose(made, MEAN + (PICTURE - MEAN) * GAIN + GAIN * LEVEL * noise, atol=2e-3)


def test_the_sde_has_the_mean_and_the_variance_of_the_closed_form():
    n = 20_000
    noise = jax.random.normal(jax.random.key(0), (n, 1))
    made = edited(EulerMaruyama(), jnp.full((n, 1), PICTURE), noise, LEVEL, steps=250)
    np.testing.assert_allclose(made.mean(), MEAN + (PICTURE - MEAN) * GAIN**2, atol=0.015)
    np.testing.assert_allclose(made.var(), GAIN**4 * LEVEL**2 + GAIN**2 * LEVEL**2, rtol=0.05)


def test_at_the_ends_it_is_the_picture_or_a_plain_sample():
    noise = jax.random.normal(jax.random.key(0), (8, 2))
    x0 = MIXTURE.sample(jax.random.key(2), 8)
    np.testing.assert_array_equal(edited(Heun(), x0, noise, 0.0, MIXTURE, 8), x0)
    plain = sample(Heun(), MIXTURE.denoise, Rho(steps=8, sigma_max=20.0).sigmas(Edm()), noise * 20.0, keys_of(8))
    for sigma in (20.0, math.inf):
        np.testing.assert_allclose(edited(Heun(), x0, noise, sigma, MIXTURE, 8), plain, atol=1e-6)


def test_the_more_noise_the_farther_from_the_picture_and_the_nearer_to_the_data():
    noise = jax.random.normal(jax.random.key(0), (2000, 2))
    x0 = jnp.broadcast_to(jnp.array([[0.0, 2.5]]), (2000, 2))
    made = [edited(Heun(), x0, noise, sigma, MIXTURE, 20) for sigma in (0.0, 0.3, 1.0, 3.0, 20.0)]
    away = [float(jnp.square(one - x0).mean()) for one in made]
    likely = [float(MIXTURE.log_density(one).mean()) for one in made]
    assert away == sorted(away)
    assert likely[:-1] == sorted(likely[:-1])
    assert likely[-1] == pytest.approx(
        float(MIXTURE.log_density(MIXTURE.sample(jax.random.key(5), 2000)).mean()), abs=0.1
    )


# --- inversion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [Edm(), Flow()], ids=["to a level", "to pure noise"])
def test_the_code_of_gaussian_data_is_the_closed_form(path):
    schedule = Rho(steps=200, sigma_max=20.0) if isinstance(path, Edm) else UniformTime(steps=200)
    x0 = GAUSSIAN.sample(jax.random.key(0), 4000)
    sigmas = schedule.sigmas(path)
    code = invert(GAUSSIAN.denoise, x0, sigmas)
    top = sigmas[0]
    exact = (x0 - MEAN) / STD
    if math.isfinite(top):
        exact = (MEAN + exact * math.sqrt(STD**2 + top**2)) / top
    np.testing.assert_allclose(code, exact, atol=2e-3)
    np.testing.assert_allclose(code.std(), 1.0, rtol=0.05)


@pytest.mark.parametrize(("solver", "order"), [(Euler(), 1), (FlowHeun(), 2), (FlowMidpoint(), 2)])
def test_the_round_trip_has_the_order_of_its_solver(solver, order):
    with jax.enable_x64(True):
        x0 = jnp.asarray(np.asarray(MIXTURE.sample(jax.random.key(0), 40)), jnp.float64)

        def error(steps: int) -> float:
            sigmas = UniformTime(steps=steps).sigmas(Flow())
            code = invert(MIXTURE.denoise, x0, sigmas, solver)
            return float(jnp.abs(sample(solver, MIXTURE.denoise, sigmas, start(code, sigmas), keys_of(40)) - x0).mean())

        coarse, fine = error(32), error(128)
    assert math.log(coarse / fine, 4) == pytest.approx(order, abs=0.1)


def test_a_schedule_that_ends_above_zero_is_followed_from_there():
    sigmas = np.geomspace(10, 0.1, 60)
    x = jnp.linspace(-1.0, 2.0, 8)[:, None]
    back = sample(Heun(), GAUSSIAN.denoise, sigmas, start(invert(GAUSSIAN.denoise, x, sigmas), sigmas), keys_of(8))
    assert float(jnp.abs(back - x).max()) < 5e-3
    with pytest.raises(UserError, match="2 steps or more"):
        invert(GAUSSIAN.denoise, x, np.array([1.0, 0.0]))


# --- an objective -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", [PLAIN, LATENT], ids=["pixels", "latents"])
def test_an_objective_edits_pixels(objective):
    assert isinstance(objective, Editable)
    state = started(objective)
    image, asked = IMAGES / 127.5 - 1, {"tokens": TOKENS}
    keys = jax.random.split(jax.random.key(1), 6)
    noise = objective.noise(keys, (8, 8, 3))
    made = {s: objective.edit(state, image, noise, keys, asked, strength=s) for s in (0.0, 0.4, 1.0)}
    np.testing.assert_allclose(made[0.0], objective.seen(state, objective.means(state, {"image": image})), atol=1e-6)
    np.testing.assert_allclose(made[1.0], objective.generate(state, noise, keys, asked), atol=1e-6)
    away = {s: float(jnp.square(made[s] - made[0.0]).mean()) for s in made}
    assert 0 < away[0.4] < away[1.0]


def test_an_objective_inverts_without_guidance():
    fine = dataclasses.replace(PLAIN, sampling=Sampling(solver=FlowHeun(), schedule=Rho(steps=60)))
    state = started(fine)
    image, asked = IMAGES / 127.5 - 1, {"tokens": TOKENS}
    code = jax.jit(fine.invert)(state, image, asked)
    keys = jax.random.split(jax.random.key(1), 6)
    np.testing.assert_allclose(jax.jit(fine.generate)(state, code, keys, asked), image, atol=0.02)
