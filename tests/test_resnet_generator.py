"""CycleGAN's and CUT's generator, against their definitions written out in torch."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.autoencoder_state import value
from golden.weights import image

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.patchgan import Instance, PatchGan
from jaxgen.models.resnet_generator import Antialiased, ResnetGenerator, Strided

GOLDEN = pathlib.Path(__file__).parent / "golden"


def near(a, b, most: float = 1e-5) -> bool:
    return bool(np.abs(np.asarray(a) - b).max() <= most * np.abs(b).max())


def shapes(net, side: int = 16):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, side, side, 3)), train=False))


def filled(net: ResnetGenerator):
    """The weights that the golden script gave its net, with no biases before norms."""

    def of(path: str, like):
        name = path.replace("kernel", "weight").replace("/", ".")
        if len(like.shape) == 1:
            return value(name, like.shape)
        a, b, inputs, outputs = like.shape
        if path.startswith("up") and net.resampling == Strided():  # torch's (in, out, h, w), and turned around
            return value(name, (inputs, outputs, a, b)).transpose(2, 3, 0, 1)[::-1, ::-1]
        return value(name, (outputs, inputs, a, b)).transpose(2, 3, 1, 0)

    return tree.map_with_path(of, shapes(net)["params"])


@pytest.mark.parametrize("resampling", [Strided(), Antialiased()], ids=["strided", "antialiased"])
def test_it_gives_what_the_reference_gives(resampling):
    golden, name = np.load(GOLDEN / "resnet_generator.npz"), type(resampling).__name__.lower()
    net = ResnetGenerator(width=4, blocks=2, resampling=resampling)
    params, x = {"params": filled(net)}, jnp.asarray(image(16, 24))
    both = jax.jit(lambda p, x: (net.apply(p, x, train=True), net.apply(p, x[:1], train=False, method="features")))
    made, maps = both(params, x)
    # Float32's rounding, which seven norms of few cells make larger: the reference is in float64.
    error = np.abs(made - golden[name])
    assert error.mean() < 1e-5 * np.abs(golden[name]).mean()
    assert error.max() < 5e-5
    assert sorted(maps) == ["block0", "block1", "halving0", "halving1", "image"]
    np.testing.assert_array_equal(maps.pop("image"), x[:1])
    for key, found in maps.items():
        assert near(found, golden[f"{name} {key}"]), key


def test_it_is_as_large_as_published_but_for_the_biases_that_do_nothing():
    idle = 64 + 128 + 256 + 18 * 256 + 128 + 64
    assert tree.count(shapes(ResnetGenerator())["params"]) == 11_378_179 - idle
    judge = PatchGan(norm=Instance())
    of_judge = jax.eval_shape(lambda: judge.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), {}, train=False))
    assert tree.count(of_judge["params"]) == 2_764_737


def test_sizes_that_it_cannot_halve_are_refused():
    with pytest.raises(UserError, match="18×16 cannot be halved 2 times; its sides must be multiples of 4, and 8 at"):
        jax.eval_shape(lambda: ResnetGenerator().init(jax.random.key(0), jnp.zeros((1, 18, 16, 3)), train=False))
    with pytest.raises(UserError, match="4×4 cannot be halved"):
        shapes(ResnetGenerator(), 4)
