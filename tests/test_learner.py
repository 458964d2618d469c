"""A learner: one that is frozen stands still, and one that learns does so as its fields say."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.learner import Learner, first_state, joint_step
from jaxgen.models.cnn import Cnn
from jaxgen.optim.ema import ConstantEma
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant


class Normed(nn.Module):
    """A layer with weights, batch statistics and dropout: whatever moves in training shows."""

    features: int = 3

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(self.features)(x))
        return nn.BatchNorm(use_running_average=not train)(x)


PLAIN = Optimizer(learning_rate=Constant(value=0.1), method=Sgd(momentum=0.0))
FROZEN = Learner(module=Normed())
LEARNING = Learner(module=Normed(features=2), optimizer=PLAIN, ema=(ConstantEma(decay=0.5),))
BATCH = {"x": jax.random.normal(jax.random.key(1), (8, 4))}


def loss_of(learners, big=1.0):
    def loss(params, stats, batch, key):
        k_encoder, k_net = jax.random.split(key)
        seen, _, encoder = learners["encoder"].train(params["encoder"], stats["encoder"], k_encoder, batch["x"])
        out, _, net = learners["net"].train(params["net"], stats["net"], k_net, seen)
        return big * jnp.square(out).mean() + big * jnp.square(seen).mean(), ({"encoder": encoder, "net": net}, {})

    return loss


def stepped(encoder: Learner, net: Learner = LEARNING, microbatches: int = 1, big: float = 1.0):
    learners = {"encoder": encoder, "net": net}
    keys = jax.random.split(jax.random.key(0))
    nets = {
        "encoder": encoder.init(keys[0], BATCH["x"], total_steps=1),
        "net": net.init(keys[1], jnp.zeros((1, 3)), total_steps=1),
    }
    state = first_state(nets)
    after, scalars = joint_step(
        learners, state, BATCH, keys[0], loss_of(learners, big), total_steps=1, microbatches=microbatches
    )
    return state, after, scalars


@pytest.mark.parametrize("microbatches", [1, 2])
def test_a_frozen_net_stands_still_in_every_way(microbatches):
    before, after, _ = stepped(FROZEN, microbatches=microbatches)
    assert tree.digest(after.nets["encoder"]) == tree.digest(before.nets["encoder"])
    assert after.nets["encoder"].opt == {}
    assert after.nets["encoder"].ema == ()
    assert jax.tree.leaves(before.nets["encoder"].stats)  # it has statistics that could move
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before.nets["net"].stats, after.nets["net"].stats)
    assert any(jax.tree.leaves(moved))
    assert tree.digest(after.nets["net"].params) != tree.digest(before.nets["net"].params)


def test_a_learner_is_not_made_with_a_rate_below_0_or_with_dropout_in_percent(key):
    backwards = Learner(module=Normed(features=2), optimizer=Optimizer(learning_rate=Constant(value=-0.1)))
    with pytest.raises(UserError, match=r"learning_rate must be 0 or more throughout; .* has -0.1"):
        backwards.init(key, jnp.zeros((1, 2)), total_steps=3)
    for dropout in (20.0, 1.0, -0.1):
        with pytest.raises(UserError, match=f"Cnn.dropout is {dropout}; it must be at least 0 and below 1"):
            Learner(module=Cnn(classes=2, dropout=dropout))


def test_the_same_net_with_an_optimizer_moves():
    before, after, _ = stepped(dataclasses.replace(FROZEN, optimizer=PLAIN))
    for part in ("params", "stats"):
        a, b = (getattr(state.nets["encoder"], part) for state in (before, after))
        assert tree.digest(a) != tree.digest(b), part


def test_a_frozen_net_has_no_part_in_the_gradients_norm():
    clipped = dataclasses.replace(LEARNING, optimizer=dataclasses.replace(PLAIN, clip=1e-3))
    before, after, scalars = stepped(FROZEN, clipped, big=1e3)
    move = jax.tree.map(lambda a, b: a - b, after.nets["net"].params, before.nets["net"].params)
    # The clipped gradient's norm is the learning net's alone, whatever the frozen net's would be.
    np.testing.assert_allclose(optax.tree.norm(move), 0.1 * 1e-3, rtol=1e-3)
    learns = dataclasses.replace(FROZEN, optimizer=PLAIN)
    _, _, both = stepped(learns, clipped, big=1e3)
    assert both["gradient_norm"] > scalars["gradient_norm"] > 0


def test_the_ema_follows_and_inference_uses_it():
    before, after, _ = stepped(FROZEN)
    expected = jax.tree.map(lambda a, b: 0.5 * (a + b), before.nets["net"].params, after.nets["net"].params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), after.nets["net"].ema[0], expected)
    net = after.nets["net"]
    x = jnp.ones((2, 3))
    by_ema = LEARNING.module.apply({"params": net.ema[0], **net.stats}, x, train=False)
    np.testing.assert_array_equal(LEARNING.infer(net, x), by_ema)
