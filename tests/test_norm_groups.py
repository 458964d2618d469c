"""Batch statistics over all devices, or of each device's own rows."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import classification

from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.nn.norm import ConvNorm
from jaxgen.plan.collectives import collectives
from jaxgen.program import Program


class Small(nn.Module):
    """Two normalised convolutions and a classifier."""

    classes: int = 4

    @nn.compact
    def __call__(self, image, *, train):
        x = nn.relu(ConvNorm(8, 3)(image, train))
        x = nn.relu(ConvNorm(8, 3)(x, train))
        return nn.Dense(self.classes)(x.mean((1, 2)))


NET = Small()


def experiment(groups: int):
    made = classification()
    net = dataclasses.replace(made.objective.net, module=NET)
    objective = dataclasses.replace(made.objective, net=net, norm_groups=groups)
    return dataclasses.replace(made, objective=objective)


def stepped(groups: int, devices: int):
    """One step: the running statistics after it, the parameters, and what the compiled step sends."""
    made = experiment(groups)
    prog = Program.of(made, devices=jax.devices()[:devices])
    state, batch = prog.init(), next(prog.batches())
    step = prog.step.lower(state, batch).compile()
    state, _ = step(state, batch)
    sent = collectives(step.as_text(), prog.mesh.shape) if devices > 1 else []
    return jax.device_get(state.nets["net"]), sent


def test_groups_are_batches_of_their_own(key):
    x = jax.random.normal(key, (8, 8, 8, 1))
    variables = NET.init(key, x, train=False)
    params, stats = variables["params"], {"batch_stats": variables["batch_stats"]}
    net = experiment(4).objective.net
    train = jax.jit(Learner.train_in_groups, static_argnums=(0, 5))
    logits, _, moved = train(net, params, stats, key, x, 4)
    apart = [train(net, params, stats, key, part, 1) for part in jnp.split(x, 4)]
    np.testing.assert_allclose(logits, jnp.concatenate([part for part, *_ in apart]), rtol=1e-4, atol=1e-5)
    mean = jax.tree.map(lambda *xs: sum(xs) / 4, *[m for *_, m in apart])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), moved, mean)


@pytest.mark.slow
def test_statistics_are_global_unless_asked_for_by_device():
    together, sent = stepped(1, 4)
    alone, _ = stepped(1, 1)
    by_device, sent_by_device = stepped(4, 4)
    in_groups, _ = stepped(4, 1)
    same = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), a, b)  # noqa: E731
    same(together.stats, alone.stats)  # global: whatever the devices
    same(by_device.stats, in_groups.stats)  # four groups are four groups, on one device too
    first = lambda net: jax.tree.leaves(net.stats)[-1]  # noqa: E731
    assert np.abs(first(by_device) - first(together)).max() > 1e-3  # and they are not the whole batch's
    # Global statistics are summed over the devices in every layer, forward and backward; groups' are at home.
    inside = lambda sent: sum(c.times for c in sent if "ConvNorm" in c.op)  # noqa: E731
    assert inside(sent) >= 4 > inside(sent_by_device)


def test_groups_that_do_not_divide_are_refused():
    made = experiment(3)
    spec = {"image": jax.ShapeDtypeStruct((16, 8, 8, 1), np.uint8), "label": jax.ShapeDtypeStruct((16,), np.int32)}
    with pytest.raises(UserError, match="16 rows of a batch do not divide into 3 groups"):
        made.objective.check(spec, ("a", "b", "c", "d"))
