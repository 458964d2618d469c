"""BasicSR's nets and Real-ESRGAN's discriminator, against their definitions written out in torch."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.super_resolution_state import BLOCKS, FEATURES, GROWTH, NETS, SIDES, WIDTH, value
from golden.weights import image
from safetensors.numpy import save_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.super_resolution import Compact, Rrdb, SrResNet, UNetDiscriminator
from jaxgen.nn.fold import to_depth, to_space
from jaxgen.nn.interfaces import Discriminator, Restorer, require
from jaxgen.weights.basicsr import BasicSr, names

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "super_resolution.npz")


def net_of(name: str):
    scale = int(name[-1])
    if name.startswith("rrdb"):
        return Rrdb(scale=scale, features=FEATURES, growth=GROWTH, blocks=BLOCKS)
    if name.startswith("srresnet"):
        return SrResNet(scale=scale, features=FEATURES, blocks=BLOCKS)
    return Compact(scale=scale, features=FEATURES, convolutions=BLOCKS)


def shapes(net, *inputs):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs, train=False))


def stored(variables) -> dict[str, np.ndarray]:
    """A published file's arrays for a net, in torch's layout."""
    paths = [path for path, _ in tree.leaves(variables)]
    arrays = {}
    for path, like in tree.leaves(variables):
        (name,) = names(path, paths)
        arrays[name] = value(name, like.shape if len(like.shape) == 1 else (*like.shape[:1:-1], *like.shape[:2]))
    return arrays


@pytest.mark.parametrize("name", NETS)
def test_nets_give_what_the_references_give_by_a_published_file(name, tmp_path):
    net, x = net_of(name), jnp.asarray(image(*SIDES))[:1]
    require(net, Restorer, "net")
    variables = shapes(net, x)
    save_file(stored(variables), tmp_path / "net.safetensors")
    made = jax.jit(lambda v: net.apply(v, x, train=False))(BasicSr(str(tmp_path / "net.safetensors")).read(variables))
    assert made.shape == GOLDEN[name].shape
    assert np.abs(made - GOLDEN[name]).max() < 1e-5


def test_the_discriminator_gives_what_the_reference_gives():
    net, x = UNetDiscriminator(width=WIDTH), jnp.asarray(image(16, 24))
    require(net, Discriminator, "discriminator")
    like = shapes(net, x, {})

    def of(path: str, leaf):
        layer = path.split("/")[-2]
        stem = f"{'' if layer in ('first', 'last') else 'inner.'}{layer}"
        name = f"{stem}.{'bias' if len(leaf.shape) == 1 else 'weight'}"
        made = value(name, leaf.shape if len(leaf.shape) == 1 else (*leaf.shape[:1:-1], *leaf.shape[:2]))
        return made if made.ndim == 1 else made.transpose(2, 3, 1, 0)

    params = tree.map_with_path(of, like["params"])

    def largest(path: str, leaf):
        kernel = {p: a for p, a in tree.leaves(params) if p.endswith("kernel")}
        layer = path.split("/")[0].removesuffix("_spectral")
        (found,) = (a for p, a in kernel.items() if layer in p.split("/"))
        return np.linalg.svd(found.reshape(-1, found.shape[-1]))[2][0]

    state = {"params": params, "spectral": tree.map_with_path(largest, like["spectral"])}
    made = jax.jit(lambda v: net.apply(v, x, {}, train=False))(state)
    assert np.abs(made - GOLDEN["judge"]).max() < 1e-5
    with pytest.raises(UserError, match="sides are multiples of 8, not 12×8"):
        shapes(net, jnp.zeros((1, 12, 8, 3)), {})


def test_published_sizes():
    blank = jnp.zeros((1, 8, 8, 3))
    assert tree.count(shapes(Rrdb(), blank)["params"]) == 16_697_987
    assert tree.count(shapes(SrResNet(), blank)["params"]) == 1_517_571
    assert tree.count(shapes(Compact(), blank)["params"]) == 621_424
    assert tree.count(shapes(UNetDiscriminator(), blank, {})["params"]) == 4_376_897


def test_shuffles_undo_each_other_and_a_new_compact_net_repeats_pixels():
    x = jnp.asarray(image(8, 12))
    np.testing.assert_array_equal(to_space(to_depth(x, 4), 4), x)
    net = Compact(scale=2, features=4, convolutions=1, folded=2)
    made = net.apply(net.init(jax.random.key(0), x, train=False), x, train=False)
    np.testing.assert_allclose(made, np.repeat(np.repeat(x, 2, 1), 2, 2), atol=1e-6)
