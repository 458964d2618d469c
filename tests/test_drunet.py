"""DRUNet against its definition written out in torch, its published size, and any size of image."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.drunet_state import BLOCKS, SIDES, WIDTHS
from golden.weights import array, image

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.drunet import DrUnet
from jaxgen.nn.interfaces import Restorer, require

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "drunet.npz")


def variables(net: DrUnet, x: jax.Array):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))


def test_it_gives_what_the_reference_gives():
    net, x = DrUnet(widths=WIDTHS, blocks=BLOCKS), jnp.asarray(image(*SIDES))[:1]
    require(net, Restorer, "net")
    like = variables(net, x)
    weights = jax.tree_util.tree_map_with_path(
        lambda path, leaf: array("/".join(key.key for key in path[1:]), leaf.shape), like
    )
    np.testing.assert_allclose(jax.jit(lambda v: net.apply(v, x, train=False))(weights), GOLDEN["plain"], atol=1e-5)


def test_it_has_the_published_size():
    # DPIR's for colour has a fourth channel, the noise level: 64 kernels of 3×3 more.
    count = sum(leaf.size for leaf in jax.tree.leaves(variables(DrUnet(), jnp.zeros((1, 8, 8, 3)))))
    assert count + 9 * 64 == 32_640_960


def test_without_biases_twice_the_light_is_twice_the_light():
    net, light = DrUnet(widths=(4, 6), blocks=1, folded=2), jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
    params = net.init(jax.random.key(0), light, train=False)
    once, twice = (net.apply(params, 2 * (by * light) - 1, train=False) for by in (0.25, 0.5))
    np.testing.assert_allclose((twice + 1) / 2, 2 * (once + 1) / 2, atol=1e-5)
    assert net.factor == 4
    biased = variables(DrUnet(widths=(4, 6), blocks=1, bias=True), light)
    assert {path.rpartition("/")[2] for path, _ in tree.leaves(biased)} == {"kernel", "bias"}


def test_no_width_is_refused():
    with pytest.raises(UserError, match="drunet: widths is empty"):
        variables(DrUnet(widths=()), jnp.zeros((1, 8, 8, 3)))
