"""The denoiser of piano rolls against Bayes' rule written out."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.models.dit import DiT
from jaxgen.models.roll_denoiser import RollDenoiser

ROWS = 4  # three symbols and the onset


class Prior(nn.Module):
    """Logits that do not look at x: what a voice likes at each step."""

    classes: int = 0

    @nn.compact
    def __call__(self, x, noise, condition, *, train):
        del noise, condition, train
        prior = self.param("prior", nn.initializers.normal(1.0), x.shape[1:])
        return jnp.broadcast_to(prior, x.shape)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_it_is_the_posterior_mean(sigma: float) -> None:
    net = RollDenoiser(backbone=Prior())
    x = jax.random.normal(jax.random.key(1), (1, 1, ROWS, 1))
    noise = jnp.full(1, sigma)
    variables = net.init(jax.random.key(0), x, noise, {}, train=False)
    prior = np.asarray(variables["params"]["backbone"]["prior"], np.float64)[0, :, 0]
    # Every roll of one voice and one step, how likely it is, and how likely x is given it.
    rolls = [
        np.where(np.arange(ROWS) == symbol, 1.0, -1.0) + 2.0 * onset * (np.arange(ROWS) == ROWS - 1)
        for symbol, onset in itertools.product(range(ROWS - 1), range(2))
    ]
    weight = [
        np.exp(prior @ (roll > 0) - ((np.asarray(x[0, 0, :, 0], np.float64) - roll) ** 2).sum() / (2 * sigma**2))
        for roll in rolls
    ]
    mean = np.average(rolls, axis=0, weights=weight)
    np.testing.assert_allclose(net.apply(variables, x, noise, {}, train=False)[0, 0, :, 0], mean, rtol=1e-5, atol=1e-6)


def test_where_there_is_little_noise_the_roll_is_what_it_is() -> None:
    net = RollDenoiser(backbone=DiT(width=16, depth=1, heads=2, patch=(1, 48)))
    symbols = jax.random.randint(jax.random.key(0), (2, 3, 4), 0, 47)
    roll = 2 * jnp.moveaxis(jax.nn.one_hot(symbols, 48), -1, 2) - 1
    noise = jnp.array([0.002, 0.1])
    x = roll + noise[:, None, None, None] * jax.random.normal(jax.random.key(1), roll.shape)
    variables = net.init(jax.random.key(2), x, noise, {}, train=False)
    np.testing.assert_allclose(net.apply(variables, x, noise, {}, train=False), roll, atol=1e-6)
    assert net.classes == 0
