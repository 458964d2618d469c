"""A game of latents: both sides play where a frozen autoencoder has its latents, and samples are pixels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import tree
from jaxgen.adversarial.penalties import R1
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.models.autoencoder_kl import AutoencoderKl, Level
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.noise import numbered
from jaxgen.objective import Generative, Objective
from jaxgen.objectives.gan import Gan
from jaxgen.objectives.latent_space import LatentSpace, variables
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant

LEVELS = (Level(8, 0), Level(8, 0))
LATENT = LatentSpace(
    autoencoder=Learner(module=AutoencoderKl(channels=2, encoder=LEVELS, decoder=LEVELS, attention=False, groups=2))
)
ADAM = Optimizer(learning_rate=Constant(value=1e-3))
OBJECTIVE = Gan(
    generator=Learner(
        module=MlpGenerator(latent=8, shape=(4, 4, 2), width=16), optimizer=ADAM, ema=(HalfLifeEma(steps=2.0),)
    ),
    discriminator=Learner(module=MlpDiscriminator(width=16), optimizer=ADAM),
    penalties=(R1(gamma=Constant(value=0.1)),),
    latent=LATENT,
    side=2,
)
BATCH = {"image": jax.random.randint(jax.random.key(9), (8, 8, 8, 3), 0, 256).astype(jnp.uint8)}
SPEC = jax.eval_shape(lambda: BATCH)
KEYED = {**BATCH, "index": jnp.arange(8), "valid": jnp.ones(8, bool)}


@pytest.fixture(scope="module")
def first():
    return jax.jit(lambda key: OBJECTIVE.init(key, SPEC))(jax.random.key(0))


@pytest.fixture(scope="module")
def stepped(first):
    return jax.jit(OBJECTIVE.step)(first, BATCH, jax.random.key(1))


def test_both_sides_learn_and_the_autoencoder_stands_still(first, stepped):
    assert isinstance(OBJECTIVE, Objective)
    assert isinstance(OBJECTIVE, Generative)
    OBJECTIVE.check(SPEC, ())
    state, scalars = stepped
    assert all(jnp.isfinite(x) for x in scalars.values())
    same = {
        name: [
            np.array_equal(a, b)
            for (_, a), (_, b) in zip(tree.leaves(net.params), tree.leaves(old.params), strict=True)
        ]
        for (name, net), old in zip(state.nets.items(), first.nets.values(), strict=True)
    }
    assert all(same["autoencoder"])
    assert not any(same["generator"])
    assert not all(same["discriminator"])


def test_the_discriminator_sees_the_latents_and_no_pixels(first, stepped):
    """What the batch holds as moments takes the place of what the autoencoder makes of its pixels."""
    made = OBJECTIVE.prepare(first, BATCH)
    np.testing.assert_allclose(
        made["latent"],
        LATENT.encode(variables(first.nets["autoencoder"]), BATCH, BATCH["image"] / 127.5 - 1),
        atol=1e-5,
    )
    step = jax.jit(OBJECTIVE.step)
    blind = {"image": jnp.zeros_like(BATCH["image"]), **made}
    state, _ = step(first, blind, jax.random.key(1))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.nets, stepped[0].nets)
    other, _ = step(first, {**blind, "latent": made["latent"] + 1}, jax.random.key(1))
    assert any(
        np.abs(a - b).max() > 1e-4
        for a, b in zip(jax.tree.leaves(other.nets), jax.tree.leaves(state.nets), strict=True)
    )


def test_samples_and_previews_are_the_pixels_of_what_is_made(stepped):
    state = stepped[0]
    keys = numbered(jax.random.key(2), jnp.arange(3))
    noise = OBJECTIVE.noise(keys, (8, 8, 3))
    made = OBJECTIVE.generator.module.apply(
        {"params": state.nets["generator"].best_params}, noise, {}, keys, train=False
    )
    found = OBJECTIVE.generate(state, noise, keys, {})
    assert found.shape == (3, 8, 8, 3)
    np.testing.assert_allclose(found, LATENT.decode(variables(state.nets["autoencoder"]), made), atol=1e-5)
    shown = OBJECTIVE.preview(state, KEYED, jax.random.key(0))
    assert all(picture.images.shape[-3:] == (8, 8, 3) for picture in shown.values() if hasattr(picture, "images"))
    assert {"samples", "discriminator"} <= shown.keys()
    assert {"paired_accuracy"} <= OBJECTIVE.evaluate(state, KEYED, jax.random.key(0)).keys()


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (dataclasses.replace(OBJECTIVE, latent=None), "makes images of 4×4×2, but the data is images of 8×8×3"),
        (
            dataclasses.replace(
                OBJECTIVE, generator=dataclasses.replace(OBJECTIVE.generator, module=MlpGenerator(shape=(8, 8, 3)))
            ),
            "makes images of 8×8×3, but the data is images of 4×4×2",
        ),
    ],
)
def test_a_generator_of_another_size_is_refused(objective, said):
    with pytest.raises(UserError, match=said):
        objective.check(SPEC, ())
