"""MuseGAN's nets: rolls that are decided, gradients that pass, and games that they can play."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data import roll
from jaxgen.errors import UserError
from jaxgen.models.musegan import RollDiscriminator, RollGenerator
from jaxgen.nn.straight_through import bits, likeliest, straight_through

GENERATOR, DISCRIMINATOR = RollGenerator(latent=8, classes=2, width=16, voices=2), RollDiscriminator(classes=2, width=8)
PLAIN = DISCRIMINATOR.clone(classes=0)
CONDITION = {"label": jnp.eye(3)[jnp.array([0, 1, 1])]}


def test_decisions_are_exact_and_their_gradient_is_that_of_the_probability():
    x, weight = jax.random.normal(jax.random.key(0), (2, 3, 5, 7))

    @jax.jit
    def found(x):
        def slope(f):
            return jax.grad(lambda x: (f(x) * weight).sum())(x)

        rows = functools.partial(likeliest, axis=1), functools.partial(jax.nn.softmax, axis=1)
        return {
            "hard": rows[0](x), "bits": bits(x),
            "rows": tuple(map(slope, rows)), "each": tuple(map(slope, (bits, jax.nn.sigmoid))),
            "through": slope(lambda p: straight_through(p, jnp.round(p))),
        }  # fmt: skip

    made = found(x)
    np.testing.assert_array_equal(np.asarray(made["hard"]).argmax(1), np.asarray(x).argmax(1))
    np.testing.assert_allclose(np.sort(made["hard"], axis=1), np.sort(np.eye(5)[0])[None, :, None] + 0 * x, atol=1e-6)
    np.testing.assert_allclose(made["bits"], x > 0, atol=1e-6)
    for own, soft in (made["rows"], made["each"]):
        np.testing.assert_allclose(own, soft, atol=1e-6)
    np.testing.assert_array_equal(made["through"], weight)  # backward it is the identity


@pytest.fixture(scope="module")
def game():
    """Rolls of three z, what a discriminator says of them and of the second alone, and both nets' gradients."""
    z, keys = jax.random.normal(jax.random.key(3), (3, 8)), jax.random.split(jax.random.key(4), 3)

    @jax.jit
    def play():
        generator = GENERATOR.init(jax.random.key(0), z, CONDITION, keys, train=True)
        discriminator = DISCRIMINATOR.init(jax.random.key(1), jnp.zeros((3, 32, 48, 2)), CONDITION, train=True)

        def judged(nets):
            fake = GENERATOR.apply(nets[0], z, CONDITION, keys, train=True)
            logits = DISCRIMINATOR.apply(nets[1], fake, CONDITION, train=True)
            return logits.sum(), (fake, logits)

        nets = generator, discriminator
        (_, (fake, logits)), gradients = jax.value_and_grad(judged, has_aux=True)(nets)
        second = jax.tree.map(lambda x: x[1:2], (fake, CONDITION))
        return fake, logits, DISCRIMINATOR.apply(discriminator, *second, train=True), nets, gradients

    return jax.device_get(play())


def test_each_voice_has_one_symbol_at_each_step(game):
    rolls = game[0]
    assert rolls.shape == (3, 32, 48, 2)
    np.testing.assert_allclose(np.abs(rolls), 1.0, atol=1e-5)
    assert ((rolls[:, :, : roll.REST + 1] > 0).sum(2) == 1).all()
    assert len(np.unique(rolls.reshape(3, -1) > 0, axis=0)) == 3  # of other noise, other music


def test_every_parameter_gets_a_gradient_through_the_decisions(game):
    for path, gradient in jax.tree_util.tree_leaves_with_path(game[4]):
        assert np.abs(gradient).max() > 0, path


def test_a_discriminator_judges_each_row_by_itself(game):
    _, logits, alone, (_, discriminator), _ = game
    assert logits.shape == (3,)
    assert discriminator.keys() == {"params"}  # no statistics of the batch: penalties by example are allowed
    np.testing.assert_allclose(alone[0], logits[1], rtol=1e-4)


def shape_of(net: RollGenerator) -> tuple[int, ...]:
    keys = jax.random.split(jax.random.key(1), 1)
    first = functools.partial(net.init_with_output, jax.random.key(0), jnp.zeros((1, 8)), {}, keys, train=False)
    return jax.eval_shape(first)[0].shape


@pytest.mark.parametrize(("steps", "rows"), [(24, 48), (32, 46), (8, 48), (32, 12)])
def test_sizes_that_do_not_divide_are_refused(steps, rows):
    with pytest.raises(UserError, match="whole bars of 16 steps, and whole octaves"):
        shape_of(GENERATOR.clone(classes=0, steps=steps, rows=rows))
    with pytest.raises(UserError, match="whole bars of 16 steps, and whole octaves"):
        jax.eval_shape(lambda: PLAIN.init(jax.random.key(0), jnp.zeros((1, steps, rows, 4)), {}, train=True))


def test_points_are_no_rolls():
    with pytest.raises(UserError, match="rolls have time, rows and voices"):
        PLAIN.init(jax.random.key(0), jnp.zeros((2, 7)), {}, train=True)


def test_longer_music_is_more_bars():
    assert shape_of(GENERATOR.clone(classes=0, steps=64)) == (1, 64, 48, 2)
