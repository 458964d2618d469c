"""R3GAN's nets and the MLPs beside them: parity with the reference, the laws of both, and the grouped convolution."""

import functools
import math
import pathlib
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.weights import array, image
from jax import lax

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.mlp import MlpDiscriminator, MlpGenerator
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator, ResidualBlock
from jaxgen.nn.conditioning import one_hot
from jaxgen.nn.grouped import GroupedConv, grouped_conv

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "r3gan.npz")

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

WIDE: dict[str, Any] = {"widths": (12, 8, 4), "group_width": 4}  # as in tests/golden/make_r3gan.py
TINY: dict[str, Any] = {"classes": 3, "widths": (8, 4), "blocks": 1, "group_width": 4}
GENERATORS: dict[str, Any] = {
    "r3gan": R3ganGenerator(latent=5, channels=1, embedding=5, **TINY),
    "mlp": MlpGenerator(latent=5, classes=3, width=16),
}
DISCRIMINATORS: dict[str, Any] = {
    "r3gan": R3ganDiscriminator(embedding=6, **TINY),
    "mlp": MlpDiscriminator(classes=3, width=16, octaves=2),
}
SHAPES = {"r3gan": (8, 8, 1), "mlp": (2,)}
LABEL = jnp.array([2, 0])
NOISE = jax.random.split(jax.random.key(0), 2)
Z = jnp.asarray(array("z", (2, 5), 1.0))
every_net = pytest.mark.parametrize("name", SHAPES)


def inputs(name: str) -> jax.Array:
    return jnp.asarray(array(f"input {name}", (2, *SHAPES[name]), 0.5))


def condition(label: jax.Array, classes: int = 3) -> Any:
    return {"label": one_hot(label, classes)} if classes else {}


def generate(net: Any, variables: Any, z: jax.Array, label: jax.Array, truncation: float = 1.0) -> jax.Array:
    given = condition(label, net.classes)
    return net.apply(variables, z, given, NOISE, train=False, truncation=truncation)


def variables_of(net: Any, shape: tuple[int, ...] = ()) -> Any:
    """Shapes of the variables: of a generator without `shape`, of a discriminator of such pictures with it."""
    x = jax.ShapeDtypeStruct((2, *shape) if shape else (2, net.latent), jnp.float32)
    rest = () if shape else (NOISE,)
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, condition(LABEL, net.classes), *rest, train=True), x)


def filled(shapes: Any) -> Any:
    """Variables of order one: at the start whole branches are silent, where a law is about every parameter."""
    scale = lambda like: 0.1 if len(like.shape) == 1 else None  # noqa: E731
    leaf = lambda path, like: jnp.asarray(array(path, like.shape[::-1], scale(like)).T)  # noqa: E731
    return tree.map_with_path(leaf, shapes)


def relative(ours: Any, reference: Any) -> float:
    reference = np.asarray(reference)
    assert np.asarray(ours).shape == reference.shape
    assert np.abs(reference).max() > 0
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max())


# Parity with the reference.


def from_torch(side: str, stages: int, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make the weight that make_r3gan.py gave the same name's module, in our layout; `side` is "g" or "d"."""
    up = side == "g"
    at = lambda stage: int(stage) if up else stages - 1 - int(stage)  # noqa: E731
    names: dict[str, Any] = {
        r"in/kernel": "ExtractionLayer.Layer.weight",
        r"label/embedding": "EmbeddingLayer.weight",
        r"basis": "MainLayers.0.Layers.0.Basis" if up else f"MainLayers.{stages - 1}.Layers.2.Basis.weight",
        r"style/kernel": "MainLayers.0.Layers.0.LinearLayer.weight",
        r"out/kernel": "AggregationLayer.Layer.weight"
        if up
        else f"MainLayers.{stages - 1}.Layers.2.LinearLayer.weight",
        r"project(\d)/kernel": lambda m: f"MainLayers.{at(m[1])}.Layers.{0 if up else 2}.LinearLayer.Layer.weight",
    }
    for i, layer in enumerate(("widen", "conv", "narrow"), 1):
        names[rf"block(\d)_(\d)/{layer}/kernel"] = lambda m, i=i: f"{block(m)}.LinearLayer{i}.Layer.weight"
        names[rf"block(\d)_(\d)/{layer}/bias"] = lambda m, i=i: f"{block(m)}.NonLinearity{i}.Bias"
    block = lambda m: f"MainLayers.{at(m[1])}.Layers.{int(m[2]) + up}"  # noqa: E731
    name = next(re.sub(pattern, name, path) for pattern, name in names.items() if re.fullmatch(pattern, path))
    name = f"{side}.{name}"
    if path == "basis":
        channels = shape[-1:]
        return (
            array(name, (*channels, 4, 4) if up else (*channels, 1, 4, 4)).reshape(*channels, 4, 4).transpose(1, 2, 0)
        )
    if len(shape) == 1:
        return array(name, shape, 0.1)
    if len(shape) == 4:
        return array(name, (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
    return array(name, shape[::-1]).T  # a 1×1 convolution's two last axes change no number


def copied(side: str, net: Any, shapes: Any) -> Any:
    leaf = lambda path, like: jnp.asarray(from_torch(side, len(net.widths), path, like.shape))  # noqa: E731
    return {"params": tree.map_with_path(leaf, shapes["params"])}


@pytest.mark.parametrize(("case", "classes"), [("plain", 0), ("conditional", 3)])
def test_equals_the_reference(case: str, classes: int) -> None:
    generator = R3ganGenerator(latent=5, classes=classes, embedding=5, **WIDE)
    pictures = jit(functools.partial(generate, generator))(copied("g", generator, variables_of(generator)), Z, LABEL)
    assert relative(pictures, GOLDEN[f"{case}_pictures"]) < 1e-4

    net = R3ganDiscriminator(classes=classes, embedding=12, **WIDE)

    def penalty(params: Any, x: jax.Array) -> Any:
        logit, back = jax.vjp(lambda x: net.apply({"params": params}, x, condition(LABEL, classes), train=True), x)
        (gradient,) = back(jnp.ones(2))
        return (gradient**2).sum(), (logit, gradient)

    params = copied("d", net, variables_of(net, (16, 16, 3)))["params"]
    second, (logit, gradient) = jit(jax.grad(penalty, has_aux=True))(params, jnp.asarray(image(16, 16)))
    assert relative(logit, GOLDEN[f"{case}_logit"]) < 1e-4
    assert relative(gradient, GOLDEN[f"{case}_gradient"]) < 1e-4
    assert relative(second["block2_0"]["conv"]["kernel"], GOLDEN[f"{case}_second"]) < 1e-4


@pytest.mark.parametrize(
    ("preset", "classes", "widths"),
    [
        ("stacked_mnist", 0, (768,) * 4),
        ("cifar10", 10, (768,) * 4),
        ("ffhq256", 0, (768, 768, 768, 768, 384, 192, 96)),
    ],
)
def test_as_many_parameters_as_the_reference(preset: str, classes: int, widths: tuple[int, ...]) -> None:
    side = 4 * 2 ** (len(widths) - 1)
    shapes = (
        variables_of(R3ganGenerator(classes=classes, widths=widths)),
        variables_of(R3ganDiscriminator(classes=classes, widths=widths), (side, side, 3)),
    )
    assert [tree.count(s["params"]) for s in shapes] == GOLDEN[f"{preset}_parameters"].tolist()


# Laws.


@every_net
def test_a_sample_depends_on_its_own_z_and_class_only(name: str) -> None:
    net = GENERATORS[name]
    f = jit(functools.partial(generate, net), static_argnums=(3,))
    f = functools.partial(f, filled(variables_of(net)))
    x = f(Z, LABEL)
    assert (x.shape, x.dtype) == ((2, *SHAPES[name]), jnp.float32)
    for other in (f(Z.at[1].add(1.0), LABEL), f(Z, LABEL.at[1].set(1))):
        np.testing.assert_allclose(other[0], x[0], atol=1e-5)
        assert np.abs(other[1] - x[1]).max() > 1e-2
    np.testing.assert_allclose(f(Z, LABEL, 0.5), f(Z / 2, LABEL), atol=1e-5)  # truncation


@every_net
def test_no_layer_of_the_discriminator_mixes_examples(name: str) -> None:
    net, x = DISCRIMINATORS[name], inputs(name)
    variables = filled(variables_of(net, SHAPES[name]))
    logits = lambda x, label: net.apply(variables, x, condition(label), train=True)  # noqa: E731
    alone = lambda x, label: logits(x[None], label[None])[0]  # noqa: E731
    together, each = jit(
        lambda x: (jax.grad(lambda x: logits(x, LABEL).sum())(x), jax.vmap(jax.grad(alone))(x, LABEL))
    )(x)
    assert relative(together, each) < 1e-5
    assert relative(together[0], together[1]) > 1e-2  # they do depend on the picture and its class
    y = jit(logits)(x, LABEL)
    assert (y.shape, y.dtype) == ((2,), jnp.float32)
    assert abs(jit(logits)(x, LABEL.at[1].set(1)) - y)[1] > 1e-3


def test_an_octave_of_the_discriminator_has_half_the_period_of_the_one_below() -> None:
    net, x = MlpDiscriminator(scale=3.0, width=8, octaves=3), inputs("mlp")
    variables = filled(variables_of(net, (2,)))
    kernel = variables["params"]["layer0"]["kernel"]
    assert kernel.shape == (2 + 2 * 2 * 3, 8)  # the coordinates, then the sines and the cosines of each octave
    for octave in range(3):
        own = [2 + 2 * octave, 3 + 2 * octave, 8 + 2 * octave, 9 + 2 * octave]
        alone = jnp.zeros_like(kernel).at[jnp.array(own)].set(kernel[jnp.array(own)])
        changed = tree.map_with_path(lambda path, leaf: alone if path == "params/layer0/kernel" else leaf, variables)  # noqa: B023
        value = functools.partial(net.apply, changed, condition={}, train=False)
        period = 3.0 * 2 / 2**octave
        np.testing.assert_allclose(value(x + period), value(x), rtol=1e-4)
        assert jnp.abs(value(x + period / 2) - value(x)).max() > 1e-2


@every_net
def test_every_parameter_gets_a_gradient(name: str) -> None:
    """The generator's through the discriminator, whose own is that of a logit and a squared gradient."""
    nets = GENERATORS[name], DISCRIMINATORS[name]
    variables = [filled(variables_of(nets[0])), filled(variables_of(nets[1], SHAPES[name]))]

    def loss(variables: Any) -> Any:
        x = generate(nets[0], variables[0], Z, LABEL)
        logits = lambda x: nets[1].apply(variables[1], x, condition(LABEL), train=True)  # noqa: E731
        return logits(x).sum() + (jax.grad(lambda x: logits(x).sum())(inputs(name)) ** 2).sum()

    for path, g in tree.leaves(jit(jax.grad(loss))(variables)):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 1e-6, path


def test_r3gan_starts_as_its_skips() -> None:
    key = jax.random.key(3, impl="rbg")
    generator = GENERATORS["r3gan"].clone(group_width=2, widths=(64, 32))
    discriminator = DISCRIMINATORS["r3gan"].clone(widths=(64, 32), blocks=0)
    x = jnp.asarray(array("x", (1, 4, 4, 64), 1.0))

    def start() -> Any:
        variables = generator.init(key, Z, condition(LABEL), NOISE, train=True)
        block = ResidualBlock(depth=2, expansion=2, group_width=2, dtype="float32")
        y = block.apply({"params": variables["params"]["block0_0"]}, x)
        return y, variables["params"], discriminator.init(key, inputs("r3gan"), condition(LABEL), train=True)["params"]

    y, *params = jit(start)()
    np.testing.assert_array_equal(y, x)  # the branch is silent
    gain = math.sqrt(2 / 1.04) * 2**-0.25  # of a leaky ReLU, in two residual blocks
    blocks = {"block0_0/widen/kernel": gain / math.sqrt(64), "block1_0/conv/kernel": gain / math.sqrt(9 * 2)}
    of_generator = {"project1/kernel": 1 / math.sqrt(64), "basis": 1.0, "label/embedding": 1 / math.sqrt(3)}
    of_discriminator = {"project1/kernel": 1 / math.sqrt(32), "basis": 1 / 4, "label/embedding": 1 / math.sqrt(3 * 6)}
    for tensors, deviations in zip(params, (blocks | of_generator, of_discriminator), strict=True):
        leaves = dict(tree.leaves(tensors))
        for path, wanted in deviations.items():
            tolerance = 4 / math.sqrt(2 * leaves[path].size)  # four standard errors
            assert np.std(leaves[path]) == pytest.approx(wanted, rel=tolerance), path
        assert not any(leaf.any() for path, leaf in leaves.items() if path.endswith(("narrow/kernel", "bias")))


@every_net
@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_bfloat16_reaches_the_layers_and_no_parameter(name: str, kind: str) -> None:
    exact = (GENERATORS if kind == "generator" else DISCRIMINATORS)[name]
    rough = exact.clone(dtype="bfloat16")
    shape = () if kind == "generator" else SHAPES[name]
    variables = variables_of(exact, shape)
    assert variables_of(rough, shape) == variables
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    if kind == "generator":
        f = lambda net: jit(lambda v: generate(net, v, Z, LABEL))(filled(variables))  # noqa: E731
    else:
        f = lambda net: jit(lambda v: net.apply(v, inputs(name), condition(LABEL), train=True))(filled(variables))  # noqa: E731
    assert f(rough).dtype == jnp.float32
    assert 1e-5 < relative(f(rough), f(exact)) < 0.1
    if name == "r3gan":  # all stages kept: nothing is left to round
        np.testing.assert_array_equal(f(rough.clone(full_precision_stages=2)), f(exact))


@pytest.mark.parametrize(
    ("fields", "shape", "cause"),
    [
        ({}, (28, 28, 1), r"2 widths are for images of 8×8, and these are 28×28×1; .* one number for each of 4×4"),
        ({}, (16, 32, 1), r"images of 8×8, and these are 16×32×1"),
        ({}, (8, 15, 1), r"8×15 cannot be halved.* to 8×16"),
        ({}, (2,), r"images of 8×8, and these are 2;"),
        ({"widths": ()}, (8, 8, 1), "widths is empty"),
        ({"group_width": 3}, (8, 8, 1), "8 channels do not divide into groups of 3"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], shape: tuple[int, ...], cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        variables_of(DISCRIMINATORS["r3gan"].clone(**fields), shape)


@every_net
def test_a_label_that_does_not_fit_the_classes_is_refused(name: str) -> None:
    x = inputs(name)
    for classes, given, cause in (
        (3, {}, "3 classes and got no label"),
        (0, condition(LABEL), "got a label and has classes=0"),
        (2, condition(LABEL), "4 columns where 2 classes and the null class need 3"),
    ):
        generator, discriminator = (nets[name].clone(classes=classes) for nets in (GENERATORS, DISCRIMINATORS))
        with pytest.raises(UserError, match=cause):
            jax.eval_shape(lambda: generator.init(jax.random.key(0), Z, given, NOISE, train=True))  # noqa: B023
        with pytest.raises(UserError, match=cause):
            jax.eval_shape(lambda: discriminator.init(jax.random.key(0), x, given, train=True))  # noqa: B023


# The grouped convolution.


@pytest.mark.parametrize("window", [(3, 3), (1, 5)])
def test_grouped_convolution_and_its_derivatives_equal_those_of_xla(window: tuple[int, int]) -> None:
    x = jnp.asarray(array("x", (2, 4, 6, 6), 1.0))
    kernel = jnp.asarray(array("kernel", (*window, 2, 9), 1.0))  # three groups of two channels, three out of each

    def xla(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=3
        )

    def derivatives(f: Any) -> Any:
        """First derivatives in both, and those of their squared norms, so that each function's rule is used."""
        first = jax.grad(lambda x, kernel: jnp.sin(f(x, kernel)).sum(), (0, 1))
        squares = [lambda *at, i=i: (first(*at)[i] ** 2).sum() for i in (0, 1)]
        return f(x, kernel), first(x, kernel), [jax.grad(square, (0, 1))(x, kernel) for square in squares]

    ours, theirs = jit(lambda: [derivatives(f) for f in (grouped_conv, xla)])()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert relative(a, b) < 1e-5


def test_grouped_layer_has_a_bias_and_groups() -> None:
    x = jnp.asarray(array("x", (1, 3, 3, 4), 1.0))
    net = GroupedConv(2)
    params = filled(jax.eval_shape(lambda: net.init(jax.random.key(0), x)))
    flax = nn.Conv(4, (3, 3), feature_group_count=2)
    np.testing.assert_allclose(net.apply(params, x), flax.apply(params, x), atol=1e-6)
