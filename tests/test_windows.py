"""Windows over large pictures: one changes nothing, of independent pixels many are exact, and none leaves a seam."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion.apg import Apg
from jaxgen.diffusion.guidance import ClassifierFree, Unguided, guide
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Heun
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.errors import UserError
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.guidance import Restoring
from jaxgen.restoration.methods import DiffPir, Tweedie
from jaxgen.restoration.separable import AverageDown
from jaxgen.restoration.windows import Windowed

HEIGHT, WIDTH = 8, 12
LABEL = {"label": jnp.eye(3)[jnp.array([0, 1])]}


def net(x, sigma, condition):
    """A linear estimate of 3×3 pixels that depends on the class, and on what lies outside as if it were 0."""
    kernel = jnp.outer(jnp.array([0.2, 0.6, 0.2]), jnp.array([0.1, 0.8, 0.1]))[:, :, None, None]
    seen = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    told = (condition["label"] * jnp.arange(3.0)[None]).sum(1) if condition else jnp.zeros(len(x))
    return seen / (1 + sigma**2) + told[:, None, None, None]


def step(guidance, x, memory=None):
    bound = guide(guidance, net, LABEL, jax.random.split(jax.random.key(2), 2))
    memory = guidance.memory(x) if memory is None else memory
    return jax.jit(lambda x, memory: bound.step(x, jnp.float32(0.7), memory))(x, memory)


@pytest.mark.parametrize("inner", [Unguided(), ClassifierFree(scale=2.0), Apg(scale=2.0, momentum=-0.5)])
def test_a_picture_of_the_nets_size_is_one_window_bit_for_bit(inner):
    x = jax.random.normal(jax.random.key(0), (2, HEIGHT, WIDTH, 1))
    through = Windowed(height=HEIGHT, width=WIDTH, inner=inner)
    assert through.count(HEIGHT, WIDTH) == (1, 1)
    plain, memory = step(inner, x)
    seen, remembered = step(through, x)
    np.testing.assert_array_equal(seen, plain)
    np.testing.assert_array_equal(step(through, 2 * x, remembered)[0], step(inner, 2 * x, memory)[0])


@pytest.mark.parametrize("inner", [Unguided(), Apg(scale=2.0, momentum=-0.5)])
def test_how_many_windows_are_seen_at_once_is_of_no_matter(inner):
    x = jax.random.normal(jax.random.key(0), (2, 19, 31, 1))
    made = []
    for rows in (1, 5, 16, 1000):
        through = Windowed(height=HEIGHT, width=WIDTH, inner=inner, rows=rows)
        first, memory = step(through, x)
        made.append((first, step(through, -x, memory)[0]))
    assert through.count(19, 31) == (4, 5)
    for other in made[1:]:
        np.testing.assert_allclose(other[0], made[0][0], atol=1e-5)
        np.testing.assert_allclose(other[1], made[0][1], atol=1e-5)
    inside = np.s_[:, 1:-1, 1:-1]  # a window's own border has little weight there, and the net sees 3×3 pixels
    if inner == Unguided():
        assert np.abs(made[0][0] - step(inner, x)[0])[inside].mean() < 0.01


@pytest.mark.parametrize("method", [Tweedie(iterations=40), DiffPir()])
@pytest.mark.parametrize("size", [(8, 40), (18, 12), (22, 26)])
def test_of_independent_pixels_windows_draw_from_the_posterior_of_the_whole(method, size):
    """The operator is of the whole picture, across the windows; the estimate of a pixel is of that pixel alone."""
    mean, variance = 0.3, 0.5
    alone = lambda x, sigma, condition: mean + (x - mean) / (1 + sigma**2 / variance)  # noqa: E731
    small = jax.random.normal(jax.random.key(3), (1, size[0] // 2, size[1] // 2, 1))
    noise, keys = jax.random.normal(jax.random.key(0), (3, *size, 1)), jax.random.split(jax.random.key(1), 3)
    made = []
    for inner in (Unguided(), Windowed(height=HEIGHT, width=WIDTH)):
        damage = Damage(operator=AverageDown(factor=2), noise=0.2)
        held = Restoring(damage=damage, measured=small, method=method, inner=inner)
        how = Sampling(solver=Heun(), schedule=Rho(steps=8), guidance=held)
        made.append(jax.jit(lambda z, how=how: how.run(alone, Edm(), z, keys, condition={})[0])(noise))
    np.testing.assert_allclose(*made, atol=2e-4)
    assert np.abs(made[1]).std() > 0.1


# A strip 4 pixels high, whose pixels know each other by exp(-distance / 2).
TALL, LONG, SEEN, N = 4, 48, 16, 2000


def covariance(width: int) -> np.ndarray:
    where = np.stack(np.meshgrid(np.arange(TALL), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
    return np.exp(-np.linalg.norm(where[:, None] - where[None], axis=-1) / 2)


def neighbours(overlap: float) -> np.ndarray:
    """Return the correlation of each column with the next, of samples drawn through windows."""
    values, vectors = (jnp.asarray(a, jnp.float32) for a in np.linalg.eigh(covariance(SEEN)))

    def wiener(x, sigma, condition):
        of = x.reshape(len(x), -1) @ vectors
        return (of * (values / (values + sigma**2))[None] @ vectors.T).reshape(x.shape)

    through = Windowed(height=TALL, width=SEEN, overlap=overlap)
    how = Sampling(solver=Ddim(eta=1.0), schedule=Rho(steps=40), guidance=through)
    noise, keys = jax.random.normal(jax.random.key(0), (N, TALL, LONG, 1)), jax.random.split(jax.random.key(1), N)
    x = np.asarray(jax.jit(lambda z: how.run(wiener, Edm(), z, keys, condition={})[0])(noise))[..., 0]
    spread = x.std((0, 1))
    return (x[..., 1:] * x[..., :-1]).mean((0, 1)) / (spread[1:] * spread[:-1])


def test_there_is_no_seam_where_windows_overlap_and_one_where_they_do_not():
    found = neighbours(0.5)
    assert found.max() - found.min() < 0.05
    assert np.abs(found - np.exp(-0.5)).max() < 0.06
    apart = neighbours(0.0)
    assert apart.min() < 0.25


def test_what_windows_cannot_be_is_said():
    with pytest.raises(UserError, match="7 pixels along a side is smaller than the 8"):
        Windowed(height=8, width=8).count(7, 20)
    for changed in ({"overlap": 1.0}, {"rows": 0}, {"height": 0}):
        with pytest.raises(UserError, match="must be"):
            dataclasses.replace(Windowed(height=8, width=8), **changed)
