"""DiT with its descendants' options, and the denoiser of points: parity with torch, and laws."""

import functools
import math
import pathlib
import types
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.resnet_state import value
from golden.weights import array, image

from jaxgen import tree
from jaxgen.config import codec
from jaxgen.errors import UserError
from jaxgen.models import dit
from jaxgen.models.dit import XL, B, DiT, L, S
from jaxgen.models.mlp import MlpDenoiser
from jaxgen.nn import attention
from jaxgen.nn.conditioning import one_hot
from jaxgen.nn.positions import Rope, SinCos, rotate
from jaxgen.nn.transformer import LayerNorm, Patches, RmsNorm, SwiGlu

GOLDEN = pathlib.Path(__file__).parent / "golden" / "dit.npz"

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

CLASSES = 5
NOISE = jnp.array([3.0, 731.5])
LABEL = {"label": one_hot(jnp.array([2, CLASSES]), CLASSES)}  # the second is the null class

small = functools.partial(DiT, width=32, depth=2, heads=2, classes=CLASSES)
LIGHTNING: dict[str, Any] = {"mlp": SwiGlu(), "rope": Rope()}
NETS = {
    "patch2": small(patch=2),
    "patch4": small(patch=4),
    "lightning_rms": small(patch=1, norm=RmsNorm(), qk_norm=RmsNorm(), **LIGHTNING),
    "lightning_layer": small(patch=1, qk_norm=LayerNorm(epsilon=1e-5, learned=True), **LIGHTNING),
}
POINTS = MlpDenoiser(classes=CLASSES, width=16, depth=2)
# What the laws are about: together they have every option.
every_kind = pytest.mark.parametrize("name", ["patch2", "lightning_rms", "points"])


def picture(name: str) -> jax.Array:
    """The input that a net has in these tests: what its golden was made with, or points."""
    if name == "points":
        return jnp.asarray(array(name, (2, 3), 1.0))
    return jnp.asarray(image(16, 16, 2) if name == "patch4" else image(8, 8, 3))


def network(name: str) -> nn.Module:
    return POINTS if name == "points" else NETS[name]


@functools.cache
def known_shapes(name: str) -> Any:
    return shapes(network(name), picture(name))


def shapes(net: nn.Module, x: Any, label: Any = LABEL) -> Any:
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, NOISE, label, train=False), x)


# From flax paths to the names and layouts of torch.

NAMES = {
    "condition/noise1": "t_embedder.mlp.0",
    "condition/noise2": "t_embedder.mlp.2",
    "patch": "x_embedder.proj",
    "modulation": "final_layer.adaLN_modulation.1",
    "norm": "final_layer.norm_final",
    "out": "final_layer.linear",
}
IN_BLOCK = {
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "query_norm": "attn.q_norm",
    "key_norm": "attn.k_norm",
    "norm1": "norm1",
    "norm2": "norm2",
    "modulation": "adaLN_modulation.1",
}
MLP = {"Gelu": {"up": "mlp.fc1", "down": "mlp.fc2"}, "SwiGlu": {"up": "mlp.w12", "down": "mlp.w3"}}


def torch_variables(net: DiT, x: Any) -> Any:
    """Make the variables of `net` from the values that the torch reference was filled with."""

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        _, *modules, kind = path.split("/")
        end = "bias" if kind == "bias" else "weight"
        if modules[0] == "blocks":
            name = (IN_BLOCK | MLP[type(net.mlp).__name__])[modules[1]]
            # Heads, and a gate beside its value, have axes of their own that torch has in one.
            inputs = 2 if kind == "kernel" else 1
            flat = (*like.shape[1:inputs], math.prod(like.shape[inputs:]))
            each = [value(f"blocks.{i}.{name}.{end}", flat[::-1]).T for i in range(like.shape[0])]
            return np.stack(each).reshape(like.shape)
        if kind == "label":
            return value("y_embedder.embedding_table.weight", like.shape)
        name = f"{NAMES['/'.join(modules)]}.{end}"
        if modules == ["patch"] and kind == "kernel":  # torch has a convolution: (out, in, kh, kw)
            side = math.isqrt(like.shape[0] // x.shape[-1])
            kernel = value(name, (like.shape[1], x.shape[-1], side, side))
            return kernel.transpose(2, 3, 1, 0).reshape(like.shape)
        return value(name, like.shape[::-1]).T

    return tree.map_with_path(leaf, shapes(net, x))


def plain_variables(name: str) -> Any:
    """Make variables of order one, for laws about every parameter: fresh ones are full of zeros."""

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        return value(path.replace("kernel", "weight"), like.shape[::-1]).T

    return tree.map_with_path(leaf, known_shapes(name))


def relative(ours: Any, reference: Any) -> float:
    reference = np.asarray(reference)
    assert np.asarray(ours).shape == reference.shape
    assert np.abs(reference).max() > 0
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max())


# Parity with torch.


@pytest.mark.parametrize("name", NETS)
def test_equals_torch(name: str) -> None:
    net, x = NETS[name], picture(name)
    y = jit(lambda v, x: net.apply(v, x, NOISE, LABEL, train=False))(torch_variables(net, x), x)
    assert relative(y, np.load(GOLDEN)[name]) < 5e-5


@pytest.mark.parametrize(
    ("size", "published"), [(S, 33), (B, 130), (L, 458), (XL, 675)]
)  # millions, arXiv:2212.09748, table 4
def test_as_many_parameters_as_published(size: dit.Size, published: int) -> None:
    net = DiT(**size, patch=2, classes=1000)
    count = tree.count(shapes(net, jnp.zeros((2, 32, 32, 4)), {"label": jnp.zeros((2, 1001))}))
    w, patch = size["width"], 2 * 2 * 4
    block = (3 + 1 + 4 + 4 + 6) * w * w + (3 + 1 + 4 + 1 + 6) * w  # qkv, out, up, down, modulation
    ends = patch * w + w + 2 * w * w + 2 * w + patch * w + patch  # patch, modulation, out
    condition = 256 * w + w + w * w + w + 1001 * w
    assert count == size["depth"] * block + ends + condition
    assert round(count / 1e6) == published


def test_lightning_has_as_many_parameters_as_published() -> None:
    net = DiT(**XL, patch=1, classes=1000, norm=RmsNorm(), **LIGHTNING)
    count = tree.count(shapes(net, jnp.zeros((2, 16, 16, 32)), {"label": jnp.zeros((2, 1001))}))
    positions = 16 * 16 * 1152  # fixed, and counted among the parameters there
    assert round((count + positions) / 1e4) == 675_26  # arXiv:2501.01423: 675.26 million


# Laws.


@every_kind
def test_output_starts_at_zero(name: str) -> None:
    init = jit(lambda key, x: network(name).init_with_output(key, x, NOISE, LABEL, train=True))
    y, variables = init(jax.random.key(0), picture(name))
    np.testing.assert_array_equal(y, np.zeros_like(picture(name)))
    assert set(variables) == {"params"}


@functools.cache
def gradient(name: str, **change: Any) -> Any:
    """Output and gradient of a net at variables of order one, with some fields changed."""
    net = network(name).clone(**change)

    def loss(variables: Any, x: Any) -> Any:
        y = net.apply(variables, x, NOISE, LABEL, train=True)
        return jnp.mean(y**2), y

    (_, y), grads = jit(jax.value_and_grad(loss, has_aux=True))(plain_variables(name), picture(name))
    return y, grads


@every_kind
def test_every_parameter_gets_a_gradient(name: str) -> None:
    _, grads = gradient(name)
    for path, g in tree.leaves(grads):
        g = np.abs(np.asarray(g))
        # Attention is blind to what all keys share; and of a stack of blocks each gets a gradient.
        g = g.reshape(len(g) if "blocks" in path else 1, -1).max(1)
        assert np.isfinite(g).all(), path
        assert (g > 1e-7).all(), path


@pytest.mark.parametrize("how", [{"remat": True}, {"remat": True, "recomputed": "cheap", "unroll": 2}], ids=str)
def test_remat_changes_no_gradient(how: dict[str, Any]) -> None:
    (y, grads), (y_remat, grads_remat) = gradient("lightning_rms"), gradient("lightning_rms", **how)
    np.testing.assert_allclose(y_remat, y, rtol=1e-5, atol=1e-5)
    for (path, g), again in zip(tree.leaves(grads), jax.tree.leaves(grads_remat), strict=True):
        assert relative(again, g) < 1e-4, path


@every_kind
def test_bfloat16_computes_close_to_float32(name: str) -> None:
    half, x = network(name).clone(dtype="bfloat16"), picture(name)
    assert shapes(half, x) == known_shapes(name)  # parameters stay f32
    y = jit(lambda v, x: half.apply(v, x, NOISE, LABEL, train=True))(plain_variables(name), x)
    assert y.dtype == jnp.float32
    assert 1e-4 < relative(y, gradient(name)[0]) < 5e-2


@pytest.mark.parametrize("net", [NETS["patch2"], small(position=None, rope=Rope(side=4), classes=0)])
def test_size_out_is_size_in(net: DiT) -> None:
    def shapes(*size: int) -> Any:
        x = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
        label = LABEL if net.classes else {}
        return jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x, NOISE, label, train=False), x)

    _, variables = shapes(8, 8)
    for size in ((4, 12), (16, 2)):
        y, others = shapes(*size)
        assert y.shape == (2, *size, 3)
        assert others == variables  # parameters know no size


@pytest.mark.parametrize("table", [lambda p, *n: p(SinCos, *n).table(*n, 16), lambda p, *n: p(Rope, *n).angles(*n, 16)])
def test_positions_know_their_row_and_column(table: Any) -> None:
    def plain(kind: Any, *_: int) -> Any:
        return kind()

    def scaled(kind: Any, *_: int) -> Any:
        return kind(side=4)

    square = table(plain, 8, 8).reshape(8, 8, -1)
    assert len(np.unique(square.reshape(64, -1).round(6), axis=0)) == 64
    np.testing.assert_array_equal(table(plain, 3, 5).reshape(3, 5, -1), square[:3, :5])
    # A finer grid over the same range: every other patch lies where one lay.
    np.testing.assert_allclose(table(scaled, 8, 8).reshape(8, 8, -1)[::2, ::2].reshape(16, -1), table(plain, 4, 4))
    np.testing.assert_allclose(table(scaled, 4, 12).reshape(4, 12, -1)[:, ::3].reshape(16, -1), table(plain, 4, 4))


def test_rotary_attention_sees_differences_only() -> None:
    angles = jnp.asarray(Rope().angles(4, 5, 8))
    q, k = (jnp.broadcast_to(array(name, (1, 1, 1, 8), 1.0), (1, 20, 1, 8)) for name in "qk")
    products = jnp.einsum("bqhc,bkhc->qk", rotate(q, angles), rotate(k, angles)).reshape(4, 5, 4, 5)
    np.testing.assert_allclose(products[1:, 2:, 1:, 2:], products[:-1, :-2, :-1, :-2], rtol=1e-4, atol=1e-5)
    assert np.abs(products[0, 0, 1:, :] - products[0, 0, 0, 0]).min() > 1e-3
    np.testing.assert_allclose(jnp.linalg.norm(rotate(q, angles), axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-5)


def test_patches_need_not_be_square() -> None:
    x = jnp.arange(2 * 4 * 6 * 2.0).reshape(2, 4, 6, 2)
    patches = Patches.of("net", 4, 6, (1, 6))
    np.testing.assert_array_equal(patches.cut(x), x.reshape(2, 4, 12))  # a row is a patch
    patches = Patches.of("net", 4, 6, (2, 3))
    np.testing.assert_array_equal(patches.cut(x)[1, 3], x[1, 2:, 3:].reshape(-1))
    np.testing.assert_array_equal(patches.join(patches.cut(x)), x)
    net = small(patch=(1, 8))
    found = tree.map_with_path(lambda _, leaf: leaf.shape, shapes(net, x := picture("patch2")))["params"]
    assert found["patch"]["kernel"] == (8 * x.shape[-1], 32)
    assert found["out"]["kernel"] == (32, 8 * x.shape[-1])


@every_kind
def test_rows_do_not_touch_each_other(name: str) -> None:
    net, x = network(name), picture(name)
    apply = jit(lambda v, x, noise, label: net.apply(v, x, noise, label, train=False))
    y = apply(plain_variables(name), x, NOISE, LABEL)
    other = apply(plain_variables(name), x * jnp.arange(2.0).reshape(2, *[1] * (x.ndim - 1)), NOISE, LABEL)
    np.testing.assert_allclose(other[1], y[1], rtol=1e-5, atol=1e-5)
    # And both noise and label reach the output.
    assert relative(apply(plain_variables(name), x, NOISE[::-1], LABEL), y) > 1e-2
    assert relative(apply(plain_variables(name), x, NOISE, {"label": LABEL["label"][::-1]}), y) > 1e-2


@pytest.mark.parametrize(
    ("net", "size", "label", "message"),
    [
        (small(patch=4), (30, 36), LABEL, r"30 × 36 does not split into patches of 4; 32 × 36 does"),
        (small(patch=(1, 5)), (8, 8), LABEL, r"8 × 8 does not split into patches of 1 × 5; 8 × 10 does"),
        (small(patch=(2, 0)), (8, 8), LABEL, r"patches of \(2, 0\); sides are at least 1"),
        (small(heads=5), (8, 8), LABEL, r"5 heads"),
        (small(width=30), (8, 8), LABEL, r"multiple of 4, not 30"),
        (small(width=36, rope=Rope()), (8, 8), LABEL, r"multiple of 4, not 18"),
        (small(), (8, 8), {}, r"5 classes and got no label"),
        (small(classes=0), (8, 8), LABEL, r"got a label and has classes=0"),
        (POINTS.clone(classes=3), (), LABEL, r"6 columns where 3 classes and the null class need 4"),
    ],
)
def test_misfits_are_refused(net: nn.Module, size: tuple[int, ...], label: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        shapes(net, jnp.zeros((2, *size, 3)), label)


@every_kind
def test_a_net_is_kept_as_json(name: str) -> None:
    assert codec.decode(codec.encode(network(name))) == network(name)


# Attention on GPUs.

GPU = types.SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3", compute_capability="9.0")
NO_MESH = types.SimpleNamespace(shape={})


@pytest.mark.parametrize(
    ("q", "device", "mesh", "reason"),
    [
        (jnp.zeros((1, 4, 2, 72), jnp.bfloat16), GPU, NO_MESH, None),
        (jnp.zeros((1, 4, 2, 72)), GPU, NO_MESH, 'the net in float32; set its dtype to "bfloat16"'),
        (jnp.zeros((1, 4, 2, 36), jnp.bfloat16), GPU, NO_MESH, "heads have 36 channels"),
        (jnp.zeros((1, 4, 2, 136), jnp.bfloat16), GPU, NO_MESH, "heads have 136 channels"),
        (jnp.zeros((1, 4, 2, 64), jnp.bfloat16), GPU, types.SimpleNamespace(shape={"context": 2}), "tokens are split"),
        (
            jnp.zeros((1, 4, 2, 64), jnp.bfloat16),
            types.SimpleNamespace(device_kind="Tesla T4", compute_capability="7.5"),
            NO_MESH,
            "Tesla T4 is no NVIDIA GPU from Ampere on",
        ),
    ],
)
def test_flash_attention_takes_what_it_can(q, device, mesh, reason):
    found = attention.unfit_for_flash(q, device, mesh)
    assert (found is None) if reason is None else (reason in found)


def test_on_a_gpu_attention_flashes_or_says_why_not(monkeypatch):
    asked = []

    def recorded(q, k, v, mask, implementation):
        asked.append(implementation)
        return q

    monkeypatch.setattr(jax, "devices", lambda: [GPU])
    monkeypatch.setattr(jax.nn, "dot_product_attention", recorded)
    half = jnp.zeros((1, 4, 2, 8), jnp.bfloat16)
    attention.attend(half, half, half)
    with pytest.warns(UserWarning, match="without cuDNN's flash attention: it computes in 16 bits"):
        attention.attend(*[jnp.zeros((1, 4, 2, 8))] * 3)
    assert asked == ["cudnn", None]
