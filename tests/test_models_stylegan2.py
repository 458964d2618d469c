"""StyleGAN2: parity with its reference, the laws of styles, and the layers, and the regulariser of path lengths."""

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
from golden import stylegan2_state as golden_state
from golden.weights import array, image
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen import tree
from jaxgen.adversarial.path_length import PathLength
from jaxgen.errors import UserError
from jaxgen.models import stylegan2
from jaxgen.models.stylegan2 import StyleGan2Generator
from jaxgen.models.stylegan2_discriminator import PlainStyleGan2Discriminator, StyleGan2Discriminator
from jaxgen.nn.conditioning import one_hot
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.nn.modulated import convolve, demodulation, modulated_conv

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "stylegan2.npz")

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

WIDTHS: Any = {"classes": 3, "base": golden_state.BASE, "widest": golden_state.WIDEST, "mapping_layers": 2}
G = StyleGan2Generator(latent=golden_state.LATENT, side=8, style_size=golden_state.STYLE, **WIDTHS)
DISCRIMINATORS = {"resnet": StyleGan2Discriminator(**WIDTHS), "orig": PlainStyleGan2Discriminator(**WIDTHS)}
Z, LABEL = jnp.asarray(array("z", (3, 7), 1.0)), jnp.array([2, 0, 1])
NOISE = jax.random.split(jax.random.key(5), 3)


def condition(label: jax.Array) -> Any:
    return {"label": one_hot(label, 3)}


CONDITION = condition(LABEL)


def shapes(net: nn.Module, *inputs: Any) -> Any:
    return jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs, train=False))


# Parity with the reference.

NAMES = {"embed/": "embed.", "/style/": ".affine.", "kernel": "weight", "strength": "noise_strength", "/": "."}
GENERATOR = {r"moving/style": "mapping.w_avg", r"synthesis/start": "synthesis.b4.const", r"mapping/layer": "mapping.fc"}
GENERATOR |= {r"/up(\d+)/": r"/b\1/conv0/", r"/same(\d+)/": r"/b\1/conv1/", r"/rgb(\d+)/": r"/b\1/torgb/"}
DISCRIMINATOR = {r"^in/": "b16/fromrgb/", r"^block(\d+)/": r"b\1/", r"^conv/": "b4/conv/", r"^dense/": "b4/fc/"}
DISCRIMINATOR |= {r"^out/": "b4/out/", r"^mapping/layer": "mapping.fc"}


def copied(net: nn.Module, patterns: dict[str, str], *inputs: Any) -> Any:
    """Give the net the weights that the reference's state_dict has."""

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path.removeprefix("params/")
        for pattern, there in patterns.items():
            name = re.sub(pattern, there, name)
        for here, there in NAMES.items():
            name = name.replace(here, there)
        if name == "b4.fc.weight":  # its inputs are pixels of features, ours features of pixels
            there = golden_state.value(name, (like.shape[1], like.shape[0])).reshape(like.shape[1], -1, 4, 4)
            return there.transpose(2, 3, 1, 0).reshape(like.shape)
        axes = {4: (2, 3, 1, 0), 3: (1, 2, 0), 2: (1, 0), 1: (0,), 0: ()}[len(like.shape)]
        shape = [0] * len(axes)
        for here, there in enumerate(axes):
            shape[there] = like.shape[here]
        return np.asarray(golden_state.value(name, tuple(shape))).transpose(axes)

    return jax.tree.map(jnp.asarray, tree.map_with_path(leaf, shapes(net, *inputs)))


def relative(ours: Any, reference: np.ndarray) -> float:
    assert np.asarray(ours).shape == reference.shape
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max())


def test_generator_equals_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = ["b4.conv1", "b8.conv0", "b8.conv1", "b16.conv0", "b16.conv1"]

    def constant(noise: Any, layer: int, size: tuple[int, int]) -> jax.Array:
        one = golden_state.value(f"synthesis.{layers[layer]}.noise_const", size)
        return jnp.broadcast_to(one[None, :, :, None], (len(noise), *size, 1))

    monkeypatch.setattr(stylegan2, "noise_map", constant)
    g = G.clone(side=golden_state.SIDE)
    variables = copied(g, GENERATOR, Z, CONDITION, NOISE)
    z, psi = jnp.asarray(golden_state.Z), golden_state.TRUNCATION
    label = condition(jnp.asarray(golden_state.LABEL)[:2])
    styles = jit(lambda v: g.apply(v, z, label, train=False, truncation=psi, method="styles"))(variables)
    assert relative(styles, GOLDEN["styles"]) < 1e-5
    picture = jit(lambda v: g.apply(v, z, label, NOISE[:2], train=False, truncation=psi))(variables)
    assert relative(picture, GOLDEN["picture"]) < 1e-5


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_discriminator_equals_the_reference(name: str) -> None:
    d = DISCRIMINATORS[name]
    x, label = jnp.asarray(image(16, 16, 3, batch=8)), condition(jnp.asarray(golden_state.LABEL))
    logits = jit(lambda v: d.apply(v, x, label, train=False))(copied(d, DISCRIMINATOR, x, label))
    assert relative(logits, GOLDEN[name]) < 1e-5


@pytest.mark.parametrize(
    ("name", "net", "inputs"),
    [
        ("generator", StyleGan2Generator(), (jnp.zeros((3, 512)), {}, NOISE)),
        ("resnet", StyleGan2Discriminator(), (jnp.zeros((1, 256, 256, 3)), {})),
        ("orig", PlainStyleGan2Discriminator(), (jnp.zeros((1, 256, 256, 3)), {})),
    ],
)
def test_as_many_parameters_as_the_reference(name: str, net: nn.Module, inputs: Any) -> None:
    assert tree.count(shapes(net, *inputs)["params"]) == GOLDEN[f"parameters_{name}"]


# Laws of styles.


@functools.cache
def variables() -> Any:
    """Those of G, with noise that is seen and a mean style that is not 0."""
    return copied(G, GENERATOR, Z, CONDITION, NOISE)


@functools.cache
def synthesis() -> Any:
    return jit(lambda v, styles, noise: G.apply(v, styles, noise, train=False, method="synthesize"))


def pictures(styles: jax.Array, noise: jax.Array) -> np.ndarray:
    return np.asarray(synthesis()(variables(), styles, noise))


@functools.cache
def mapping(truncation: float) -> Any:
    return jit(lambda v, z, label: G.apply(v, z, condition(label), train=False, truncation=truncation, method="styles"))


def styles(z: jax.Array, label: jax.Array, truncation: float = 1.0) -> np.ndarray:
    return np.asarray(mapping(truncation)(variables(), z, label))


def trained(net: StyleGan2Generator, z: jax.Array, label: jax.Array) -> Any:
    """Styles in training, and the mean style after it."""
    f = lambda v, key: net.apply(  # noqa: E731
        v, z, condition(label), train=True, method="styles", mutable=["moving"], rngs={"mixing": key}
    )
    found, moved = jit(f)(variables(), jax.random.key(2))
    return np.asarray(found), np.asarray(moved["moving"]["style"])


def test_a_sample_is_a_function_of_its_own_z_and_noise() -> None:
    mates = jnp.array([1, 2, 0])
    one = pictures(jnp.asarray(styles(Z, LABEL)), NOISE)
    moved = styles(Z[mates] + jnp.array([[1.0], [0.0], [0.0]]), LABEL[mates])
    other = pictures(jnp.asarray(moved), NOISE[mates])
    np.testing.assert_allclose(other[1:], one[mates[1:]], atol=1e-5)
    assert np.abs(other[0] - one[1]).max() > 1e-2
    noisy = pictures(jnp.asarray(styles(Z, LABEL)), NOISE[::-1])
    assert np.abs(noisy[0] - one[0]).max() > 1e-2
    np.testing.assert_array_equal(noisy[1], one[1])  # whose noise is the same
    assert np.abs(styles(Z, LABEL[::-1])[0] - styles(Z, LABEL)[0]).max() > 1e-2


def test_truncation_pulls_to_the_mean_style() -> None:
    mean = np.broadcast_to(variables()["moving"]["style"], (3, 4, golden_state.STYLE))
    np.testing.assert_array_equal(styles(Z, LABEL, 0.0), mean)  # the same picture for every z
    np.testing.assert_allclose(styles(Z, LABEL, 0.25), mean + 0.25 * (styles(Z, LABEL) - mean), atol=1e-6)


def test_mixing_changes_late_layers_only() -> None:
    z, label = jnp.asarray(array("z", (400, 7), 1.0)), jnp.arange(400) % 3
    found, mean = trained(G, z, label)
    plain = styles(z, label)
    mixed = np.abs(found - plain).max(-1) > 1e-5
    assert not mixed[:, 0].any()
    assert (mixed[:, 1:] >= mixed[:, :-1]).all()  # from the first that changes on, all do
    # With probability 0.9 from layer 1, 2 or 3 on, each as likely: within four standard deviations.
    np.testing.assert_allclose(mixed[:, 1:].mean(0), [0.3, 0.6, 0.9], atol=4 * math.sqrt(0.25 / 400))
    now, before = plain[:, 0].mean(0), variables()["moving"]["style"]
    np.testing.assert_allclose(mean, 0.995 * before + 0.005 * now, atol=1e-6)  # not moved by what is mixed in
    np.testing.assert_allclose(trained(G.clone(mixing=0.0), z, label)[0], plain, atol=1e-6)


def test_mean_style_moves_in_training_only() -> None:
    init = lambda: G.init(jax.random.key(0, impl="rbg"), Z, CONDITION, train=True, method="styles")["moving"]  # noqa: E731
    assert not jit(init)()["style"].any()
    f = lambda v: G.apply(v, Z, CONDITION, train=False, method="styles", mutable=["moving"])[1]  # noqa: E731
    np.testing.assert_array_equal(jit(f)(variables())["moving"]["style"], variables()["moving"]["style"])


def test_every_parameter_gets_a_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    d = DISCRIMINATORS["resnet"]
    z, ids, noise = (jnp.concatenate([x, x[:1]]) for x in (Z, LABEL, NOISE))
    label = condition(ids)
    made = variables()  # before its noise is another
    # Drawing takes longer to compile than all the rest.
    monkeypatch.setattr(
        stylegan2, "noise_map", lambda _, layer, size: jnp.asarray(array(f"{layer}", (4, *size, 1), 1.0))
    )

    def loss(g: Any, d_: Any) -> Any:
        fake, _ = G.apply(g, z, label, noise, train=True, rngs={"mixing": jax.random.key(2)}, mutable=["moving"])
        return nn.softplus(d.apply(d_, fake, label, train=True)).mean()

    # Noise has no strength at the start, and learns one from there.
    quiet = tree.map_with_path(lambda path, leaf: leaf * ("strength" not in path), made)
    start = copied(d, DISCRIMINATOR, jnp.zeros((4, 8, 8, 3)), label)
    for net in jit(jax.grad(loss, (0, 1)))(quiet, start):
        for path, g in tree.leaves(net["params"]):
            assert np.isfinite(g).all(), path
            assert np.abs(g).max() > 1e-7, path


def test_bfloat16_reaches_the_convolutions_and_no_parameter() -> None:
    g, d = G.clone(dtype="bfloat16"), StyleGan2Discriminator(**WIDTHS, dtype="bfloat16")
    inputs = (Z, CONDITION, NOISE)
    assert shapes(g, *inputs) == shapes(G, *inputs)
    fake = jnp.zeros((3, 8, 8, 3))
    start = shapes(d, fake, CONDITION)
    assert {leaf.dtype for leaf in jax.tree.leaves(start)} == {np.dtype("float32")}
    both = {
        "g": jax.make_jaxpr(lambda v: g.apply(v, *inputs, train=False))(shapes(g, *inputs)),
        "d": jax.make_jaxpr(lambda v, x: d.apply(v, x, CONDITION, train=False))(start, fake),
    }
    kinds = {
        k: [str(e.invars[0].aval.dtype) for e in v.eqns if e.primitive.name == "conv_general_dilated"]
        for k, v in both.items()
    }
    # In float32: enlarging the picture; the convolution that follows the comparison of the batch.
    assert {k: [v.count("bfloat16"), v.count("float32")] for k, v in kinds.items()} == {"g": [6, 1], "d": [6, 1]}
    assert {v.out_avals[0].dtype for v in both.values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("net", "inputs", "cause"),
    [
        (
            G.clone(side=18),
            (Z, CONDITION, NOISE),
            "images of 18×18 cannot be halved .* to 16×16 for example",
        ),
        (G, (Z[:, :5], CONDITION, NOISE), "z has 5 columns; the net's latent is 7"),
        (G, (Z, {}, NOISE), "3 classes and got no label"),
        (DISCRIMINATORS["orig"].clone(classes=0), (jnp.zeros((3, 8, 8, 3)), CONDITION), "classes=0"),
        (DISCRIMINATORS["orig"], (jnp.zeros((3, 8, 15, 3)), CONDITION), "8×15 .* to 8×16"),
        (DISCRIMINATORS["orig"], (jnp.zeros((3, 22, 22, 3)), CONDITION), "22×22 .* to 24×24"),
    ],
)
def test_mistakes_are_named(net: nn.Module, inputs: Any, cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        shapes(net, *inputs)


# Layers.


def one_by_one(x: Any, kernel: Any, style: Any, gain: Any, *, up: int) -> jax.Array:
    """What `modulated_conv` computes, by a kernel for each sample."""
    kernels = kernel[None] * style[:, None, None, :, None]
    kernels = kernels if gain is None else kernels * gain[:, None, None, None]
    return jnp.concatenate([convolve(x[i : i + 1], kernels[i], up=up) for i in range(len(x))])


@pytest.mark.parametrize("up", [1, 2])
def test_scaling_maps_is_scaling_kernels(up: int) -> None:
    x, kernel = jnp.asarray(array("x", (3, 4, 6, 5), 1.0)), jnp.asarray(array("kernel", (3, 3, 5, 7), 1.0))
    style = 1 + jnp.asarray(array("style", (3, 5), 0.3))

    def both(x: Any, kernel: Any, style: Any) -> Any:
        gain = demodulation(kernel, style)
        maps = [f(x, kernel, style, g, up=up) for f in (modulated_conv, one_by_one) for g in (gain, None)]
        return jnp.stack(maps).reshape(2, -1)

    def value(which: int) -> Any:
        loss = lambda *a: (both(*a)[which] ** 3).sum() / 1e3  # noqa: E731
        return jax.grad(loss, (0, 1, 2))(x, kernel, style), both(x, kernel, style)[which]

    ours, reference = jit(lambda: (value(0), value(1)))()
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(reference), strict=True):
        assert relative(a, np.asarray(b)) < 1e-5


def test_demodulation_gives_unit_variance() -> None:
    x, kernel = jnp.asarray(array("x", (3, 64, 64, 5), 1.0)), 7 * jnp.asarray(array("kernel", (3, 3, 5, 4), 1.0))
    style = 3 * jnp.asarray(array("style", (3, 5), 1.0))
    y = modulated_conv(x, kernel, style, demodulation(kernel, style))[:, 1:-1, 1:-1]
    np.testing.assert_allclose(jnp.square(y).mean((1, 2)), 1.0, atol=0.1)


def test_enlarging_keeps_a_constant_map() -> None:
    kernel, style = jnp.asarray(array("kernel", (3, 3, 5, 4), 1.0)), jnp.asarray(array("style", (3, 5), 1.0))
    y = modulated_conv(jnp.ones((3, 8, 8, 5)), kernel, style, up=2)[:, 3:-3, 3:-3]
    np.testing.assert_allclose(y, jnp.broadcast_to((style @ kernel.sum((0, 1)))[:, None, None], y.shape), atol=1e-4)


@pytest.mark.parametrize(("rows", "size"), [(8, 4), (6, 3), (5, 1), (2, 2)])
def test_groups_are_strided_and_divide_the_batch(rows: int, size: int) -> None:
    x = array("x", (rows, 2, 3, 6), 1.0)
    y = np.asarray(minibatch_std(jnp.asarray(x), 4, channels=2))
    np.testing.assert_array_equal(y[..., :6], x)
    for row in range(rows):
        group = x[row % (rows // size) :: rows // size]
        assert len(group) == size
        for k, features in enumerate((slice(0, 3), slice(3, 6))):
            wanted = np.sqrt(group[..., features].var(0) + 1e-8).mean()
            np.testing.assert_allclose(y[row, ..., 6 + k], wanted, rtol=1e-5)


def test_minibatch_std_by_hand() -> None:
    x = jnp.array([0.0, 5.0, 2.0, 9.0]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(minibatch_std(x, 2)[:, 0, 0, 1], [1.0, 2.0, 1.0, 2.0], rtol=1e-6)  # {0, 2} and {5, 9}
    with pytest.raises(UserError, match="1 features do not divide into 2 shares"):
        minibatch_std(x, 2, channels=2)


@pytest.mark.parametrize("group", [2, 4, 8])
def test_minibatch_std_is_blind_to_devices(group: int) -> None:
    x = jnp.asarray(array("x", (16, 2, 2, 3), 1.0))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    wanted = minibatch_std(x, group)
    assert np.ptp(wanted[..., -1]) > 1e-2
    np.testing.assert_allclose(jit(minibatch_std, static_argnums=1)(split, group), wanted, rtol=1e-6)


# The regulariser of path lengths.


def test_path_length_of_a_linear_map() -> None:
    rows, layers, d = 4096, 2, 6
    basis = np.linalg.qr(array("basis", (4 * 4 * 3, d), 1.0))[0] * 5
    f = lambda styles: (styles.sum(1) @ basis.T).reshape(rows, 4, 4, 3)  # noqa: E731
    regulariser, key = PathLength(decay=0.25), jax.random.key(0)
    penalty, memory = jit(lambda: regulariser.rows(f, jnp.ones((rows, layers, d)), regulariser.init(), key))()
    # Jᵀy has d independent entries of variance 5² / (h·w) in each layer: its length is a scaled chi variable.
    mean = math.sqrt(2) * math.gamma((d + 1) / 2) / math.gamma(d / 2) * 5 / 4
    variance = d * 25 / 16 - mean**2
    assert memory["mean"] == pytest.approx(0.25 * mean, rel=0.02)
    assert penalty == pytest.approx(variance + (0.75 * mean) ** 2, rel=0.03)
    # Where the running mean has arrived, the variance is left.
    assert regulariser.rows(f, jnp.ones((rows, layers, d)), {"mean": mean}, key)[0] == pytest.approx(variance, rel=0.1)


def test_path_length_of_a_constant_map_has_a_finite_gradient() -> None:
    regulariser = PathLength(every=8)

    def penalty(slope: Any) -> Any:
        f = lambda x: jnp.ones((2, 4, 4, 3)) + slope * x.sum()  # noqa: E731
        return regulariser.rows(f, jnp.ones((2, 1, 3)), {"mean": jnp.ones(())}, jax.random.key(0))[0]

    assert np.isfinite(jit(jax.grad(penalty))(0.0))
    assert (regulariser.factor(), regulariser.share(9), regulariser.share(1)) == (16.0, 4, 1)
    with pytest.raises(UserError, match="shrink"):
        PathLength(shrink=0)
