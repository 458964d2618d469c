"""Inherited weights: what is alike is copied, what is not stays, and the source outlives the net's training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.cnn import Cnn
from jaxgen.models.fcn import Fcn
from jaxgen.nn.backbones import SmallBackbone
from jaxgen.state import Net, create
from jaxgen.weights.inherit import inherit

WIDTHS = (2, 3, 4, 4, 4)


def made(module, seed: int, side: int, emas: int = 0) -> Net:
    variables = module.init(jax.random.key(seed), jnp.zeros((1, side, side, 3)), train=False)
    noisy = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(seed), x.shape), variables)
    return create(noisy["params"], {"batch_stats": noisy["batch_stats"]}, optax.adam(1e-3), emas)


def fcn(stride, seed: int, emas: int = 0) -> Net:
    backbone = SmallBackbone(widths=WIDTHS, depths=(1,) * 5)
    return made(Fcn(classes=3, stride=stride, backbone=backbone, hidden=(5,), window=1), seed, 32, emas)


def leaves(net: Net) -> dict[str, jax.Array]:
    return dict(tree.leaves({"params": net.params, **net.stats}))


@pytest.mark.parametrize(
    ("source", "new"),
    [
        pytest.param(made(Cnn(classes=3, widths=WIDTHS[:3], depths=(1,) * 3, hidden=(5,)), 1, 16), 32, id="classifier"),
        pytest.param(fcn(32, 1), 16, id="32s"),
        pytest.param(fcn(16, 1), 8, id="16s"),
    ],
)
def test_what_is_alike_is_taken_and_the_rest_stays(source: Net, new: int) -> None:
    net = fcn(new, 2, emas=1)
    before, given, after = leaves(net), leaves(source), leaves(inherit(net, source))
    alike = {path for path in before if path in given and given[path].shape == before[path].shape}
    assert {
        path for path in before if path.startswith(("params/features/conv1", "batch_stats/features/norm1"))
    } <= alike
    assert alike != before.keys()
    for path, leaf in after.items():
        assert np.array_equal(leaf, (given if path in alike else before)[path]), path
    moved = inherit(net, source)
    assert jax.tree.all(jax.tree.map(np.array_equal, moved.ema[0], moved.params))
    assert moved.opt is net.opt


def test_the_source_outlives_the_net() -> None:
    source = fcn(32, 1)
    net = inherit(fcn(16, 2), source)
    jax.tree.map(lambda x: x.delete(), (net.params, net.stats))  # as a step does with the state that goes in
    assert all(np.isfinite(leaf).all() for leaf in leaves(source).values())


def test_nets_that_share_nothing_are_refused() -> None:
    other = made(Cnn(classes=3, widths=(7, 7, 7), depths=(1,) * 3, hidden=(6,)), 1, 16)
    narrow = {"params": {"dense": {"kernel": jnp.zeros((2, 2))}}}
    with pytest.raises(UserError, match="no parameter of the same path and shape"):
        inherit(create(narrow["params"], {}, optax.sgd(1.0)), other)
