"""SongUNet and Edm2UNet: parity with their references, and the laws that both obey; the layers they are made of."""

import functools
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import unet_state
from golden.unet_state import NOISE, SETUPS, Setup
from golden.weights import array, image

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models import edm2
from jaxgen.models import songunet as song
from jaxgen.models.edm2 import Edm2UNet, MPConv
from jaxgen.models.songunet import SongUNet
from jaxgen.nn import resample
from jaxgen.nn.attention import attend, split_heads
from jaxgen.nn.conditioning import one_hot, scaled_label_weights
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.magnitude import mp_cat, mp_silu, mp_sum, pixel_norm, unit

GOLDEN = pathlib.Path(__file__).parent / "golden"

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL: dict[str, Any] = {
    "song": SongUNet(classes=3, model_channels=8, multipliers=(2,), blocks=1, attention=(8,), dropout=0.5),
    "edm2": Edm2UNet(
        classes=3, model_channels=8, multipliers=(2,), blocks=1, attention=(8,), head_channels=8, dropout=0.5
    ),
}
X, SIGMA = jnp.asarray(image(8, 8, 1)), jnp.asarray(NOISE)
every_net = pytest.mark.parametrize("name", SMALL)


def variables_of(net: nn.Module, height: int = 8, width: int = 8, channels: int = 1) -> Any:
    x = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    noise = jax.ShapeDtypeStruct((2,), jnp.float32)
    return jax.eval_shape(lambda x, noise: net.init(jax.random.key(0), x, noise, {}, train=False), x, noise)


def filled(net: nn.Module) -> Any:
    """Variables of order one: at the start whole branches are silent, where a law is about every parameter."""

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> jax.Array:
        if path.startswith("constants"):
            return jnp.asarray(array(path, like.shape, 2 * math.pi))
        if len(like.shape) < 2:
            return (0.0 if path.endswith("bias") else 1.0) + jnp.asarray(array(path, (1, *like.shape), 0.1)[0])
        return jnp.asarray(array(path, like.shape[::-1]).T)

    return tree.map_with_path(leaf, variables_of(net))


def relative(ours: Any, reference: Any) -> float:
    reference = np.asarray(reference)
    assert np.asarray(ours).shape == reference.shape
    assert np.abs(reference).max() > 0
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max())


def magnitude(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


# Parity with the references.


def torch_module(path: str, setup: Setup, names: dict[str, str]) -> str:
    """Translate "encode1_0/conv0" into "enc.8x8_block0.conv0"; `names` are those of the parts."""
    side = lambda level: "{0}x{0}".format(setup.height >> int(level))  # noqa: E731
    part, _, rest = path.partition("/")
    blocks = (
        (r"down(\d)", lambda m: f"enc.{side(m[1])}_down"),
        (r"encode(\d)_(\d)", lambda m: f"enc.{side(m[1])}_block{m[2]}"),
        (r"middle(\d)", lambda m: f"dec.{side(len(setup.multipliers) - 1)}_in{m[1]}"),
        (r"up(\d)", lambda m: f"dec.{side(int(m[1]) - 1)}_up"),
        (r"decode(\d)_(\d)", lambda m: f"dec.{side(m[1])}_block{m[2]}"),
    )
    for pattern, name in blocks:
        if match := re.fullmatch(pattern, part):
            return f"{name(match)}.{names.get(rest, rest)}"
    return names[part].format(side(0))


SONG_NAMES = {
    "in": "enc.{}_conv",
    "norm": "dec.{}_aux_norm",
    "out": "dec.{}_aux_conv",
    "label": "map_label",
    "embed0": "map_layer0",
    "embed1": "map_layer1",
    "shift": "affine",
    "attention/norm": "norm2",
    "attention/qkv": "qkv",
    "attention/out": "proj",
}
EDM2_NAMES = {
    "in": "enc.{}_conv",
    "out": "out_conv",
    "embed_noise": "emb_noise",
    "embed_label": "emb_label",
    "residual/conv0": "conv_res0",
    "residual/conv1": "conv_res1",
    "residual/scale": "emb_linear",
    "skip": "conv_skip",
    "attention/qkv": "attn_qkv",
    "attention/out": "attn_proj",
}


def thirds_first(leaf: np.ndarray, head: int) -> np.ndarray:
    """Reorder outputs: the references count heads, their channels, then queries, keys and values."""
    outputs = leaf.shape[-1]
    split = leaf.reshape(*leaf.shape[:-1], outputs // (3 * head), head, 3)
    return np.moveaxis(split, -1, -3).reshape(leaf.shape)


def from_torch(name: str, shape: tuple[int, ...], value: Callable[..., np.ndarray]) -> np.ndarray:
    if len(shape) == 4:
        return value(name, (shape[3], shape[2], shape[0], shape[1])).transpose(2, 3, 1, 0)
    return value(name, shape[::-1]).T


def song_variables(net: SongUNet, setup: Setup) -> Any:
    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        module, _, kind = path.removeprefix("params/").rpartition("/")
        name = f"{torch_module(module, setup, SONG_NAMES)}.{'bias' if kind == 'bias' else 'weight'}"
        out = from_torch(name, like.shape, unet_state.song)
        if module.endswith("qkv"):
            return thirds_first(out, setup.head_channels)
        # The reference adds the classes to sines, then cosines, where we have cosines first.
        if module == "label":
            return np.roll(out, setup.model_channels // 2, axis=-1)
        if module == "embed0" and kind == "kernel":
            return np.roll(out, setup.model_channels // 2, axis=0)
        return out

    return tree.map_with_path(leaf, variables_of(net, setup.height, setup.width, setup.channels))


def edm2_variables(net: Edm2UNet, setup: Setup) -> Any:
    constants = {"frequency": "emb_fourier.freqs", "phase": "emb_fourier.phases"}

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        module, _, kind = path.partition("/")[2].rpartition("/")
        if path.startswith("constants"):
            name = constants[kind]
        elif kind == "gain":
            name = f"{torch_module(module, setup, {'residual': 'emb_gain'})}" if module else "out_gain"
        else:
            name = f"{torch_module(module, setup, EDM2_NAMES)}.{kind}"
        out = from_torch(name, like.shape, unet_state.edm2)
        return thirds_first(out, setup.head_channels) if module.endswith("qkv") else out

    return tree.map_with_path(leaf, variables_of(net, setup.height, setup.width, setup.channels))


@pytest.mark.parametrize("case", SETUPS)
@pytest.mark.parametrize(
    ("name", "kind", "make"), [("songunet", SongUNet, song_variables), ("edm2", Edm2UNet, edm2_variables)]
)
def test_equals_the_reference(name: str, kind: Any, make: Callable[..., Any], case: str) -> None:
    golden, setup = np.load(GOLDEN / f"{name}.npz"), SETUPS[case]
    net = kind(
        classes=setup.classes,
        model_channels=setup.model_channels,
        multipliers=setup.multipliers,
        blocks=setup.blocks,
        attention=setup.attention,
        head_channels=setup.head_channels,
    )
    variables = make(net, setup)
    assert tree.count(variables["params"]) == golden[f"{case}_parameters"]
    x = image(setup.height, setup.width, setup.channels)
    label = {"label": unet_state.label(setup.classes)} if setup.classes else {}
    y = jit(lambda v, *a: net.apply(v, *a, train=False))(variables, x, NOISE, label)
    assert relative(y, golden[case]) < 1e-5


@pytest.mark.parametrize(
    ("net", "size", "parameters"),
    [
        (SongUNet(), 32, 55_733_891 - 9 * 128),  # EDM's net for CIFAR-10, less the map of its 9 augmentation labels
        (Edm2UNet(classes=1000), 64, 280_209_253),  # EDM2-S for ImageNet-64
    ],
)
def test_as_many_parameters_as_the_reference(net: nn.Module, size: int, parameters: int) -> None:
    assert tree.count(variables_of(net, size, size, 3)["params"]) == parameters


# Laws.


@functools.cache
def forward(name: str, dtype: Any = "float32") -> Any:
    """Compile the small net `name` for five rows: a function of noise f32[5] and label f32[5 4], and its jaxpr."""
    net = SMALL[name].clone(dtype=dtype)

    def f(noise: jax.Array, label: jax.Array) -> jax.Array:
        return net.apply(filled(net), X[:1].repeat(5, axis=0), noise, {"label": label}, train=False)

    traced = jit(f).trace(jnp.zeros(5), jnp.zeros((5, 4)))
    return traced.lower().compile({"xla_backend_optimization_level": 0}), traced.jaxpr


@every_net
def test_the_null_class_is_no_class_and_the_others_differ(name: str) -> None:
    f, _ = forward(name)
    label = one_hot(jnp.array([0, 1, 2, 3, 3]), 3)
    rows = np.asarray(f(jnp.full(5, 0.3), label))
    # The same rows of the batch are compared: how a row is rounded can depend on its place in it.
    np.testing.assert_array_equal(f(jnp.full(5, 0.3), label.at[:, 3].set(0.0)), rows)
    assert relative(rows[4], rows[3]) < 1e-5
    assert min(np.abs(rows[i] - rows[j]).max() for i in range(4) for j in range(i)) > 1e-3
    assert (
        relative(f(jnp.full(5, 0.4), one_hot(jnp.full(5, 3), 3))[0], rows[3]) > 1e-3
    )  # and it hears of the noise level
    null = scaled_label_weights({"label": jnp.eye(4)[3:]}, 3, 1)
    np.testing.assert_array_equal(scaled_label_weights({}, 3, 1), null)
    assert not null.any()


@every_net
def test_bfloat16_reaches_the_convolutions_and_no_parameter(name: str) -> None:
    variables = variables_of(SMALL[name].clone(dtype="bfloat16"))
    assert variables == variables_of(SMALL[name])
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    (exact, _), (rough, jaxpr) = forward(name), forward(name, "bfloat16")
    kinds = [e.invars[0].aval.dtype for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    assert kinds[-1] == jnp.float32
    assert set(kinds[:-1]) == {np.dtype(jnp.bfloat16)}
    exact, rough = (f(jnp.full(5, 0.3), jnp.eye(4)[jnp.array([0, 1, 2, 3, 3])]) for f in (exact, rough))
    assert rough.dtype == jnp.float32
    assert 1e-4 < relative(rough, exact) < 0.1  # it did compute in 8 bits of mantissa, and not in fewer


@functools.cache
def gradient(name: str, multipliers: tuple[int, ...], remat: bool) -> Any:
    net = SMALL[name].clone(multipliers=multipliers, remat=remat)
    variables = filled(net)
    label = jnp.array([[0.0, 1.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]])

    def loss(params: Any) -> Any:
        rngs = {"dropout": jax.random.key(1, impl="rbg")}
        y = net.apply({**variables, "params": params}, X, SIGMA, {"label": label}, train=True, rngs=rngs)
        return jnp.mean((y - 1.0) ** 2)

    traced = jit(jax.grad(loss)).trace(variables["params"])
    assert ("remat" in str(traced.jaxpr)) == remat
    compiled = traced.lower().compile({"xla_backend_optimization_level": 0})
    return jax.device_get(compiled(variables["params"]))


by_hand = functools.partial(pytest.param, marks=pytest.mark.by_hand)


@pytest.mark.parametrize(
    ("name", "multipliers"), [("song", (2,)), ("edm2", (2,)), by_hand("song", (1, 2)), by_hand("edm2", (1, 2))]
)
def test_every_parameter_gets_a_gradient(name: str, multipliers: tuple[int, ...]) -> None:
    for path, g in tree.leaves(gradient(name, multipliers, False)):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 1e-6, path


@pytest.mark.parametrize(
    ("name", "multipliers"),
    [pytest.param("song", (2,), marks=pytest.mark.slow), by_hand("edm2", (2,)), by_hand("song", (1, 2))],
)
def test_remat_leaves_the_gradient_alone(name: str, multipliers: tuple[int, ...]) -> None:
    wanted, grads = (gradient(name, multipliers, remat) for remat in (False, True))
    largest = max(np.abs(w).max() for w in jax.tree.leaves(wanted))
    for (path, g), (_, w) in zip(tree.leaves(grads), tree.leaves(wanted), strict=True):
        assert np.abs(g - w).max() < 1e-5 * largest, path


def test_song_starts_as_edm() -> None:
    block = song.Block(16, attention=True, head_channels=8)
    x = jnp.asarray(array("x", (1, 4, 4, 8), 1.0))
    start = lambda key: block.init_with_output(key, x, jnp.ones((1, 32)), False)  # noqa: E731
    y, variables = jit(start)(jax.random.key(3, impl="rbg"))
    skip = variables["params"]["skip"]["kernel"][0, 0]
    np.testing.assert_allclose(y, jnp.einsum("bhwi,io->bhwo", x, skip) / 2, atol=1e-3)  # silent but for its skip
    for name, factor in {"conv0": 1, "conv1": 1e-5, "attention/qkv": math.sqrt(0.2), "attention/out": 1e-5}.items():
        leaf = functools.reduce(lambda node, part: node[part], name.split("/"), variables["params"])
        *space, i, o = leaf["kernel"].shape
        bound = factor * math.sqrt(6 / (math.prod(space) * (i + o)))
        assert 0.95 * bound < np.abs(leaf["kernel"]).max() <= bound * (1 + 1e-6)
        assert not leaf["bias"].any()


def test_edm2_starts_at_zero_with_normalised_weights() -> None:
    key = jax.random.key(3, impl="rbg")
    gain = jit(lambda: SMALL["edm2"].init(key, X, SIGMA, {}, train=False)["params"]["gain"])()
    assert gain == 0  # the output's magnitude
    x = jnp.asarray(array("x", (1, 4, 4, 8), 1.0))
    params = jit(lambda: edm2.DecoderBlock(16).init(key, x, jnp.ones((1, 16)), False))()["params"]
    for path, leaf in tree.leaves(params):
        rows = np.square(np.asarray(leaf).reshape(-1, leaf.shape[-1] if leaf.ndim else 1)).mean(0)
        np.testing.assert_allclose(rows, 1.0 if leaf.ndim else 0.0, rtol=1e-3, err_msg=path)


@every_net
def test_size_out_is_size_in(name: str) -> None:
    size = (2, 6)
    net = SMALL[name].clone(channels=2, multipliers=(1, 2))
    y = jax.eval_shape(
        lambda v, x: net.apply(v, x, jnp.zeros(3), {}, train=False),
        variables_of(net, *size, 5),
        jax.ShapeDtypeStruct((3, *size, 5), jnp.float32),
    )
    assert (y.shape, y.dtype) == ((3, *size, 2), jnp.float32)


@every_net
@pytest.mark.parametrize(
    ("fields", "size", "cause"),
    [
        ({"multipliers": (1, 2, 2)}, (30, 28), r"30×28 cannot be halved 2 times; .* multiples of 4, such as 32×28"),
        ({"multipliers": ()}, (8, 8), "multipliers is empty"),
        ({"head_channels": 12}, (8, 8), "16 channels do not divide into heads of 12"),
    ],
)
def test_mistakes_are_named(name: str, fields: dict[str, Any], size: tuple[int, int], cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        variables_of(SMALL[name].clone(**fields), *size)


@every_net
def test_labels_of_other_classes_are_refused(name: str) -> None:
    net = SMALL[name]
    refused = (
        (net, {"label": jnp.ones((2, 3))}, "3 columns where 3 classes and the null class need 4"),
        (net, {"tokens": jnp.ones((2, 4))}, "no condition named tokens"),
        (net.clone(classes=0), {"label": jnp.ones((2, 4))}, "got a label and has classes=0"),
    )
    for other, given, cause in refused:
        variables = variables_of(other)
        with pytest.raises(UserError, match=cause):
            jax.eval_shape(lambda v: other.apply(v, X, SIGMA, given, train=False), variables)  # noqa: B023


# The layers of magnitude 1.


def test_every_operation_keeps_the_magnitude() -> None:
    a, b = (jnp.asarray(array(name, (2, 16, 16, 24), 1.0)) for name in "ab")
    x = np.linspace(-8, 8, 4001, dtype=np.float32)
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    assert np.trapezoid(mp_silu(jnp.asarray(x)) ** 2 * density, x) == pytest.approx(1, abs=2e-3)
    for t in (0.0, 0.3, 0.5, 1.0):
        assert magnitude(mp_sum(a, b, t)) == pytest.approx(1, abs=0.02)
        np.testing.assert_allclose(mp_sum(a, a, t), a * (1 / math.hypot(1 - t, t)), rtol=1e-5)
    whole = mp_cat(a, b[..., :8], 0.3)
    assert magnitude(whole) == pytest.approx(1, abs=0.02)
    shares = [float(jnp.sum(part**2)) for part in jnp.split(whole, [24], axis=-1)]
    assert shares[1] / sum(shares) == pytest.approx(0.3**2 / (0.3**2 + 0.7**2), abs=0.01)
    np.testing.assert_allclose(jnp.mean(pixel_norm(a * 50) ** 2, -1), 1.0, rtol=1e-4)
    assert np.isfinite(jax.grad(lambda x: pixel_norm(x).sum())(jnp.zeros((1, 4)))).all()


@pytest.mark.parametrize("kernel", [1, 3])
def test_mp_conv_is_blind_to_the_magnitude_of_its_weight(kernel: int) -> None:
    conv = MPConv(32, kernel)
    x = jnp.asarray(array("x", (2, 16, 16, 24), 1.0))
    y, variables = jit(conv.init_with_output)(jax.random.key(0, impl="rbg"), x)
    weight = variables["params"]["weight"]
    assert magnitude(y[:, 1:-1, 1:-1]) == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(jnp.mean(weight**2, axis=tuple(range(weight.ndim - 1))), 1.0, rtol=1e-3)
    np.testing.assert_allclose(unit(weight * 7), weight, rtol=1e-3)

    f = jit(jax.value_and_grad(lambda w: jnp.sum(conv.apply({"params": {"weight": w}}, x) * jnp.cos(y))))
    value, g = f(weight)
    np.testing.assert_allclose(f(weight * 7)[0], value, rtol=1e-3)
    along = jnp.abs((g * weight).sum(axis=tuple(range(weight.ndim - 1))))
    assert along.max() < 1e-3 * jnp.linalg.norm(g) * jnp.linalg.norm(weight)
    np.testing.assert_allclose(conv.apply(variables, x, 0.5), 0.5 * y, atol=1e-5)


def test_one_expression_finds_the_normalised_weights() -> None:
    for path, leaf in tree.leaves(variables_of(SMALL["edm2"])["params"]):
        assert bool(re.search(edm2.WEIGHTS, path)) == (leaf.ndim >= 2), path
    assert not any(re.search(edm2.WEIGHTS, path) for path, _ in tree.leaves(variables_of(SMALL["song"])))


# Shared layers.


@pytest.mark.parametrize("shape", [(2, 6, 4, 12), (3, 5, 12), (2, 12)])
def test_group_norm_equals_flax_however_large_the_mean(shape: tuple[int, ...]) -> None:
    x = jnp.asarray(np.round(array("x", shape, 64.0)) / 64)  # so few bits that the offset takes none of them away
    params = {"scale": 1.0 + jnp.asarray(array("scale", (12,), 0.2)), "bias": jnp.asarray(array("bias", (12,), 0.2))}
    cotangent = jnp.asarray(array("cotangent", shape, 1.0))

    def of(net: nn.Module, offset: float) -> Any:
        def f(params: Any, x: Any) -> Any:
            y = net.apply({"params": params}, x + offset)
            return (y * cotangent).sum(), y

        return jax.grad(f, (0, 1), has_aux=True)(params, x)

    ours, flax = GroupNorm(3, epsilon=1e-6), nn.GroupNorm(3, epsilon=1e-6)
    wanted, *found = jax.device_get(jit(lambda: [of(flax, 0.0), of(ours, 0.0), of(ours, 3000.0)])())
    for one in found:
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(wanted), strict=True):
            assert relative(a, b) < 1e-5


def test_group_norm_takes_statistics_in_float32() -> None:
    x = jnp.asarray(array("x", (2, 8, 8, 8), 1.0) + 30.0, jnp.bfloat16)
    params = {"params": {"scale": jnp.ones(8), "bias": jnp.zeros(8)}}
    y = GroupNorm(2, dtype="bfloat16").apply(params, x)
    assert y.dtype == jnp.bfloat16
    exact = GroupNorm(2).apply(params, x.astype(jnp.float32))
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))
    with pytest.raises(UserError, match="8 channels do not divide into 3 groups"):
        GroupNorm(3).apply(params, x)


def test_attention_is_softmax_over_tokens() -> None:
    x = jnp.asarray(array("qkv", (2, 3, 4, 18), 1.0))
    heads = split_heads(x, 3)
    y = attend(*heads)
    q, k, v = (np.asarray(third, np.float64).reshape(2, 12, 2, 3) for third in jnp.split(x, 3, axis=-1))
    for ours, theirs in zip(heads, (q, k, v), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    weights = np.exp(np.einsum("bqnd,bknd->bnqk", q, k) / math.sqrt(3))
    weights /= weights.sum(-1, keepdims=True)
    np.testing.assert_allclose(y, np.einsum("bnqk,bknd->bqnd", weights, v).reshape(2, 12, 6), atol=1e-6)


def test_halving_averages_and_undoes_doubling() -> None:
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(resample.halve(x)[0, :, :, 0], [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(resample.double(x)[0, :3, :3, 0], [[0, 0, 1], [0, 0, 1], [4, 4, 5]])
    np.testing.assert_array_equal(resample.halve(resample.double(x)), x)
