"""The game's steps by themselves: PatchGAN logits, a target in addition, and generators that share a loss."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.augmentation import Adaptive
from jaxgen.adversarial.diffaugment import DiffAugment
from jaxgen.adversarial.game import (
    Game,
    Opponent,
    discriminator_step,
    generator_loss,
    generator_step,
    logit_statistics,
    logits,
)
from jaxgen.adversarial.losses import LeastSquares, NonSaturating, RelativisticAverage
from jaxgen.adversarial.penalties import R1, LeCam
from jaxgen.learner import Learner, first_state, joint_step
from jaxgen.optim.ema import ConstantEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.tree import digest

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
STEPS, KEY = 120, jax.random.key(0)


class Patches(nn.Module):
    """A PatchGAN: logits f32[b h/4 w/4], of patches of the image and of its source, where the condition has one."""

    @nn.compact
    def __call__(self, image, condition, *, train):
        del train
        x = jnp.concatenate([image, *condition.values()], axis=-1)
        x = nn.leaky_relu(nn.Conv(8, (4, 4), strides=2)(x), 0.2)
        x = nn.leaky_relu(nn.Conv(8, (4, 4), strides=2)(x), 0.2)
        return nn.Dense(1)(x)[..., 0]


class Translator(nn.Module):
    """A generator from images to images."""

    @nn.compact
    def __call__(self, image, *, train):
        del train
        return nn.Conv(1, (3, 3))(nn.relu(nn.Conv(8, (3, 3))(image)))


def learner(module: nn.Module, rate: float = 1e-2, **fields: Any) -> Learner:
    optimizer = Optimizer(learning_rate=Constant(value=rate), method=Adam(b1=0.0, b2=0.9))
    return Learner(module=module, optimizer=optimizer, **fields)


GENERATOR, DISCRIMINATOR = learner(Translator(), ema=(ConstantEma(decay=0.9),)), learner(Patches())


def make(params, stats, rows, key):
    fake, _, stats = GENERATOR.train(params, stats, key, rows["source"])
    return fake, stats


def pairs(key: jax.Array, n: int = 16) -> dict[str, Any]:
    """Sources, and what they shall become: a lighter image of half the contrast."""
    source = 0.5 * jax.random.normal(key, (n, 8, 8, 1))
    return {"source": source, "real": 0.5 * source + 0.5, "condition": {"source": source}}


def distance(params, stats, memory, fake, rows, key):
    """L1 to the target; its memory counts the calls."""
    del params, stats, key
    l1 = jnp.abs(fake - rows["real"]).mean()
    return 10.0 * l1, {"calls": memory["calls"] + 1}, {"l1": l1}


def nets() -> tuple[Any, Any]:
    rows = pairs(KEY, 1)
    return (
        GENERATOR.init(KEY, rows["source"], total_steps=STEPS),
        DISCRIMINATOR.init(KEY, rows["real"], rows["condition"], total_steps=STEPS),
    )


GAMES = {
    "RaGAN, R1": Game(loss=RelativisticAverage(), penalties=(R1(gamma=Constant(value=0.1)),), total_steps=STEPS),
    "LSGAN, LeCam, augmented, microbatches": Game(
        loss=LeastSquares(),
        penalties=(LeCam(strength=Constant(value=0.1)),),
        augmentation=DiffAugment(p=Adaptive(images=1000.0), cutout=0.0),
        microbatches=2,
        total_steps=STEPS,
    ),
}
every_game = pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)


@every_game
def test_a_patch_discriminator_and_a_generator_learn_from_each_other(game):
    """Against each other, without a target: the fakes take over the data's mean and standard deviation."""

    def step(carry, key):
        g, d, memory, number = carry
        k_rows, k_make, k_d, k_g = jax.random.split(key, 4)
        rows = pairs(k_rows)
        rows["fake"], _ = make(g.params, g.stats, rows, k_make)
        d, memory, of_d = discriminator_step(game, DISCRIMINATOR, d, memory, rows, k_d, number)
        opponent = Opponent(DISCRIMINATOR, d, memory)
        g, kept, of_g = generator_step(game, GENERATOR, g, opponent, make, rows, k_g, number)
        assert kept is None
        return (g, d, memory, number + 1), of_d | of_g

    @quick
    def play(g, d):
        return jax.lax.scan(step, (g, d, game.init(), jnp.int32(0)), jax.random.split(KEY, STEPS))

    rows = pairs(jax.random.key(1), 256)
    (g, d, memory, _), scalars = play(*nets())
    before, after = (GENERATOR.infer(net, rows["source"]) for net in (nets()[0], g))
    assert abs(float(before.mean()) - 0.5) > 0.2
    np.testing.assert_allclose(after.mean(), rows["real"].mean(), atol=0.1)
    np.testing.assert_allclose(after.std(), rows["real"].std(), rtol=0.2)
    assert g.ema
    assert not d.ema
    assert {"loss", "gradient_norm", "discriminator_loss", "discriminator_gradient_norm"} < scalars.keys()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(scalars))
    assert scalars["paired_accuracy"][:20].mean() > scalars["paired_accuracy"][-20:].mean()
    if "augmentation" in scalars:
        np.testing.assert_allclose(scalars["augmentation"][-1], memory["augmentation"]["p"], atol=16 / 1000 * 4)
        assert float(memory["penalties"][0]["mass"]) > 0


@every_game
def test_a_discriminator_alone_gets_better_and_nothing_else_moves(game):
    g, first = nets()
    rows = pairs(KEY)
    rows["fake"], _ = make(g.params, g.stats, rows, KEY)
    step = quick(functools.partial(discriminator_step, game, DISCRIMINATOR))
    d, memory, losses = first, game.init(), []
    for i in range(20):
        d, memory, scalars = step(d, memory, rows, jax.random.key(i), jnp.int32(i))
        losses.append(float(scalars["discriminator_loss"]))
    assert losses[-1] < 0.8 * losses[0]
    statistics = logit_statistics(
        game.loss, *(logits(DISCRIMINATOR, d, rows[name], rows["condition"]) for name in ("real", "fake"))
    )
    assert all(x.shape == (16,) for x in statistics.values())
    assert statistics["paired_accuracy"].mean() > 0.9
    assert statistics["real"].mean() > statistics["fake"].mean()


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_generators_own_term_is_added_and_remembered(microbatches):
    game = dataclasses.replace(GAMES["RaGAN, R1"], microbatches=microbatches)
    g, d = nets()
    opponent = Opponent(DISCRIMINATOR, d, game.init())
    step = quick(
        lambda g, kept, rows, key, i: generator_step(game, GENERATOR, g, opponent, make, rows, key, i, distance, kept)
    )
    kept, l1 = {"calls": jnp.int32(0)}, []
    for i in range(30):
        g, kept, scalars = step(g, kept, pairs(jax.random.key(i)), KEY, jnp.int32(i))
        l1.append(float(scalars["l1"]))
        assert float(scalars["loss"]) > 10 * l1[-1] - 1e-5  # RaGAN's losses are positive
    assert int(kept["calls"]) == 30 * microbatches
    assert l1[-1] < 0.5 * l1[0]


def test_an_unpaired_generator_does_not_look_at_real_images():
    game = Game(loss=NonSaturating(), total_steps=STEPS)
    g, d = nets()
    opponent = Opponent(DISCRIMINATOR, d, game.init())
    rows = pairs(KEY)
    other = {**rows, "real": rows["real"] + 1.0}
    step = quick(lambda rows: generator_step(game, GENERATOR, g, opponent, make, rows, KEY, jnp.int32(0))[0])
    assert digest(step(rows)) == digest(step(other))


@pytest.mark.parametrize(("weight", "falls"), [(0.1, "fooled"), (10.0, "cycle")])
def test_generators_that_share_a_loss_learn_against_fixed_discriminators(weight, falls):
    """As a CycleGAN's: two adversarial terms and the way there and back in one loss, two nets in one update."""
    game = Game(loss=LeastSquares(), total_steps=STEPS)
    there, back = learner(Translator()), learner(Translator())
    rows = {name: value for name, value in pairs(KEY).items() if name != "condition"}
    d = DISCRIMINATOR.init(KEY, rows["real"][:1], {}, total_steps=STEPS)
    opponent = Opponent(DISCRIMINATOR, d, game.init())

    def loss(params, stats, rows, key):
        def run(name, net, image):
            return net.train(params[name], stats[name], key, image)[0]

        light, dark = run("there", there, rows["source"]), run("back", back, rows["real"])
        keys = jax.random.split(key, 3)
        fooled = sum(
            generator_loss(game, opponent, real, fake, {}, keys, jnp.int32(0))
            for real, fake in ((rows["real"], light), (rows["source"], dark))
        )
        cycle = jnp.abs(run("back", back, light) - rows["source"]).mean()
        cycle += jnp.abs(run("there", there, dark) - rows["real"]).mean()
        return fooled + weight * cycle, (stats, {"fooled": fooled, "cycle": cycle})

    learners = {"there": there, "back": back}
    state = first_state(
        {
            name: net.init(jax.random.key(i), rows["source"], total_steps=STEPS)
            for i, (name, net) in enumerate(learners.items())
        }
    )
    step = quick(lambda state, key: joint_step(learners, state, rows, key, loss, total_steps=STEPS))
    history = []
    for i in range(40):
        state, scalars = step(state, jax.random.key(i))
        history.append(scalars)
    assert float(history[-1][falls]) < 0.8 * float(history[0][falls])
    assert float(history[-1]["loss"]) < 0.9 * float(history[0]["loss"])
