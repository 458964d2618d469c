"""The small classifier, VGG, their convolutional form, and FCN-32s, 16s and 8s."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.weights import array, he, image

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.cnn import Cnn
from jaxgen.models.fcn import PAPER, SAME, Fcn, Geometry
from jaxgen.models.vgg import Vgg
from jaxgen.nn.backbones import SmallBackbone, VggBackbone
from jaxgen.nn.head import Head
from jaxgen.nn.resize import Padding, max_pool
from jaxgen.nn.upsample import bilinear, transposed_convolution
from jaxgen.typing import Tree
from jaxgen.weights.convolutionalize import convolutionalize, transplant

GOLDEN = pathlib.Path(__file__).parent / "golden"
SIZES = ((64, 64), (37, 53))
WIDTHS, HIDDEN, CLASSES = (4, 8, 16, 24, 24), 32, 3  # as in golden/make_fcn.py
DEPTHS = (2, 2, 3, 3, 3)

TINY = SmallBackbone(widths=(4, 4, 6, 6, 8), depths=(1, 1, 1, 1, 2))
STRIDES = (8, 16, 32)


def fill(net: nn.Module, height: int = 64, width: int = 64, channels: int = 3) -> Tree:
    """Make variables for pictures of this size, none of them the zero or the one that it would begin as."""
    picture = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    shapes = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), picture)

    def value(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path.endswith("kernel"):
            return jnp.asarray(array(path, leaf.shape, np.sqrt(2.0 / np.prod(leaf.shape[:-1]))))
        noise = jnp.asarray(array(path, leaf.shape, 0.1))
        return 1.0 + noise if path.endswith(("scale", "var")) else noise

    return {"batch_stats": {}, **tree.map_with_path(value, dict(shapes))}


def run(net: nn.Module, variables: Tree, x: np.ndarray | jax.Array) -> jax.Array:
    return jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, jnp.asarray(x))


def close(ours: jax.Array, reference: np.ndarray | jax.Array, tolerance: float) -> bool:
    """Agree to `tolerance` of the reference's largest magnitude."""
    assert ours.shape == reference.shape
    assert np.abs(reference).max() > 1e-3
    return np.abs(np.asarray(ours) - np.asarray(reference)).max() <= tolerance * np.abs(reference).max()


# --- goldens: the torch nets of golden/make_fcn.py ---


def convolution(name: str, shape: tuple[int, ...], boost: float = 1.0) -> Tree:
    """Make a layer {kernel [h w i o], bias [o]} from torch's weight [o i h w] of that name."""
    weight = boost * he(f"{name}.weight", shape)
    return {"kernel": weight.transpose(2, 3, 1, 0), "bias": he(f"{name}.bias", shape[:1])}


def dense(name: str, outputs: int, cells: tuple[int, ...]) -> Tree:
    """Make a layer {kernel [h·w·c o], bias [o]} from torch's weight [o c·h·w]; cells is (c, h, w) or (c,)."""
    weight = he(f"{name}.weight", (outputs, int(np.prod(cells)))).reshape(outputs, *cells)
    rows = np.moveaxis(weight, 1, -1).reshape(outputs, -1)  # channels last: (h, w, c)
    return {"kernel": rows.T, "bias": he(f"{name}.bias", (outputs,))}


def vgg_features(names: list[str]) -> Tree:
    """Make the convolutions of VGG-16: conv1_1 … conv5_3 here, `names` in torch."""
    params, inputs, theirs = {}, 3, iter(names)
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
        for i in range(1, depth + 1):
            params[f"conv{stage}_{i}"] = convolution(next(theirs), (width, inputs, 3, 3))
            inputs = width
    return params


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("stride", STRIDES)
def test_fcn_equals_the_torch_reference(stride: int, height: int, width: int):
    params = {
        "features": vgg_features([f"conv{s}_{i}" for s, d in enumerate(DEPTHS, start=1) for i in range(1, d + 1)]),
        "head": {
            "fc6": convolution("fc6", (HIDDEN, WIDTHS[4], 7, 7)),
            "fc7": convolution("fc7", (HIDDEN, HIDDEN, 1, 1)),
            "score": convolution("score_fr", (CLASSES, HIDDEN, 1, 1)),
        },
    }

    def deconvolution(name: str, side: int) -> Tree:
        return {"kernel": he(f"{name}.weight", (CLASSES, CLASSES, side, side)).transpose(2, 3, 0, 1)}  # [i o h w]

    params["upsample"] = deconvolution("upscore", 2 * stride)
    if stride <= 16:
        params["score_pool4"] = convolution("score_pool4", (CLASSES, WIDTHS[3], 1, 1), boost=100.0)
        params["upsample_to_pool4"] = deconvolution("upscore2", 4)
    if stride == 8:
        params["score_pool3"] = convolution("score_pool3", (CLASSES, WIDTHS[2], 1, 1), boost=10000.0)
        params["upsample_to_pool3"] = deconvolution("upscore_pool4", 4)

    net = Fcn(
        classes=CLASSES, stride=stride, backbone=VggBackbone(widths=WIDTHS), hidden=(HIDDEN, HIDDEN), geometry=PAPER
    )
    x = jnp.asarray(image(height, width))
    expected = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    assert close(run(net, {"params": params}, x), np.load(GOLDEN / f"fcn_{stride}s.npz")[f"{height}x{width}"], 1e-4)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_vgg_equals_torchvision(height: int, width: int):
    indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    params = {
        "features": vgg_features([f"features.{i}" for i in indices]),
        "head": {
            "fc6": dense("classifier.0", HIDDEN, (WIDTHS[4], height // 32, width // 32)),
            "fc7": dense("classifier.3", HIDDEN, (HIDDEN,)),
            "score": dense("classifier.6", CLASSES, (HIDDEN,)),
        },
    }
    net = Vgg(classes=CLASSES, widths=WIDTHS, hidden=(HIDDEN, HIDDEN))
    ours = run(net, {"params": params}, image(height, width))
    assert close(ours, np.load(GOLDEN / "vgg.npz")[f"{height}x{width}"], 1e-4)


# --- classifiers ---


def test_vgg_has_as_many_parameters_as_torchvision():
    picture = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: Vgg().init(jax.random.key(0), x, train=False), picture)
    assert tree.count(shapes["params"]) == 138_357_544


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (28, 1), (32, 3)])
def test_the_cnn_classifies_pictures_of_several_sizes(side: int, channels: int):
    net = Cnn(classes=7, widths=(4, 4), hidden=(5,))
    logits = run(net, fill(net, side, side, channels), image(side, side, channels))
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert not np.allclose(logits[0], logits[1])


@pytest.mark.parametrize(("padding", "sides"), [("SAME", (4, 3)), ("VALID", (3, 2))])
def test_max_pool_rounds_as_its_padding_says(padding: Padding, sides: tuple[int, int], key: jax.Array):
    x = jax.random.normal(key, (2, 7, 5, 3)) - 10.0  # below zero: padding with zeros would win
    pooled = max_pool(x, padding)
    assert pooled.shape == (2, *sides, 3)
    assert np.array_equal(pooled, nn.max_pool(x, (2, 2), (2, 2), padding))


# --- convolutionalize ---

CLASSIFIERS = pytest.mark.parametrize(
    "net",
    [
        Vgg(classes=5, widths=(4, 6, 8), depths=(1, 2, 1), hidden=(10, 9)),
        Cnn(classes=5, widths=(4, 6), depths=(2, 1), hidden=(10,)),
        Cnn(classes=5, widths=(4, 6), depths=(1, 1), hidden=()),
    ],
    ids=["vgg", "cnn", "no hidden layer"],
)


def last_map(net: Cnn | Vgg, variables: Tree, x: np.ndarray) -> jax.Array:
    """The features alone, before the head."""
    if isinstance(net, Vgg):
        backbone = VggBackbone(net.widths, net.depths, net.padding, "VALID")
    else:
        backbone = SmallBackbone(net.widths, net.depths, net.padding)
    return run(backbone, {kind: values.get("features", {}) for kind, values in variables.items()}, x)[-1]


@CLASSIFIERS
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_at_the_native_size_the_map_is_the_logits(net: Cnn | Vgg, padding: Padding):
    net, x = net.clone(padding=padding), image(48, 40)
    variables = fill(net, 48, 40)
    conv, params = convolutionalize(net, variables["params"], last_map(net, variables, x).shape[1:3])
    scores = run(conv, {**variables, "params": params}, x)
    assert scores.shape == (2, 1, 1, 5)
    assert close(scores[:, 0, 0], run(net, variables, x), 1e-5)


@CLASSIFIERS
def test_each_cell_is_the_head_on_that_window_of_the_map(net: Cnn | Vgg):
    variables = fill(net, 32, 32)
    rows, columns = last_map(net, variables, image(32, 32)).shape[1:3]
    conv, params = convolutionalize(net, variables["params"], (rows, columns))
    larger = image(53, 64)
    scores, seen = run(conv, {**variables, "params": params}, larger), last_map(net, variables, larger)

    head = Head(net.classes, net.hidden, first=len(net.widths) + 1)  # dense
    classify = jax.jit(lambda x: head.apply({"params": variables["params"]["head"]}, x, train=False))
    assert scores.shape[1:3] == (seen.shape[1] - rows + 1, seen.shape[2] - columns + 1)
    assert min(scores.shape[1:3]) > 1
    for i, j in np.ndindex(scores.shape[1:3]):
        assert close(scores[:, i, j], classify(seen[:, i : i + rows, j : j + columns]), 1e-5)


@CLASSIFIERS
def test_without_padding_each_cell_is_the_classifier_on_that_crop(net: Cnn | Vgg):
    net = net.clone(padding="VALID")
    rows, columns, stride = 44, 37, 2 ** len(net.widths)
    variables = fill(net, rows, columns)
    window = last_map(net, variables, image(rows, columns)).shape[1:3]
    conv, params = convolutionalize(net, variables["params"], window)
    larger = jnp.asarray(image(rows + 2 * stride, columns + stride + 1))
    scores = run(conv, {**variables, "params": params}, larger)

    classify = jax.jit(lambda x: net.apply(variables, x, train=False))
    assert np.all(np.array(scores.shape[1:3]) >= (3, 2))
    for i, j in np.ndindex(3, 2):
        crop = larger[:, i * stride : i * stride + rows, j * stride : j * stride + columns]
        assert close(scores[:, i, j], classify(crop), 1e-5)


def test_a_window_of_another_size_is_refused():
    net = Cnn(widths=(4, 6), depths=(1, 1), hidden=(10,))
    with pytest.raises(UserError, match="takes 64 cells"):
        convolutionalize(net, fill(net, 32, 32)["params"], (7, 7))


@pytest.mark.parametrize(
    ("classifier", "backbone"),
    [
        (Vgg(classes=9, widths=WIDTHS, hidden=(10, 9)), VggBackbone(widths=WIDTHS)),
        (Cnn(classes=9, widths=TINY.widths, depths=TINY.depths, hidden=(10, 9)), TINY),
    ],
    ids=["vgg", "cnn"],
)
def test_an_fcn_with_a_classifiers_layers_scores_what_the_classifier_does(classifier: Cnn | Vgg, backbone: nn.Module):
    given = fill(classifier, 64, 64)
    net = Fcn(classes=9, backbone=backbone, hidden=(10, 9), window=2)
    before = fill(net)["params"]
    params = transplant(before, given["params"])
    assert {k for k in before if before[k] is not params[k]} >= {"features", "head"}
    assert np.array_equal(params["score_pool4"]["kernel"], before["score_pool4"]["kernel"])

    # With the classifier's own last layer the coarsest map is the classifier's: the window is the whole of it.
    score = given["params"]["head"]["score"]
    params["head"]["score"] = {"kernel": score["kernel"][None, None], "bias": score["bias"]}
    x = jnp.asarray(image(64, 64))
    _, seen = net.apply(
        {"params": params, "batch_stats": given["batch_stats"]},
        x,
        train=False,
        capture_intermediates=lambda module, _: module.name == "head",
    )
    (coarsest,) = seen["intermediates"]["head"]["__call__"]
    assert close(coarsest[:, 0, 0], run(classifier, given, x), 1e-5)


def test_a_classifier_of_other_widths_is_refused():
    params = fill(Fcn(classes=9, backbone=TINY, hidden=(10,), window=2))["params"]
    narrower = Cnn(classes=9, widths=(2, *TINY.widths[1:]), depths=TINY.depths, hidden=(10,))
    with pytest.raises(UserError, match="features/conv1_1/kernel is"):
        transplant(params, fill(narrower)["params"])
    with pytest.raises(UserError, match="only one of the two nets has head/fc7"):
        transplant(params, fill(narrower.clone(widths=TINY.widths, hidden=(10, 9)))["params"])


# --- upsampling ---


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_transposed_convolution_equals_xlas(factor: int, key: jax.Array):
    x = jax.random.normal(key, (2, 4, 3, 5))
    kernel = jax.random.normal(key, (2 * factor, 2 * factor, 5, 6))
    expected = jax.lax.conv_transpose(
        x, kernel[::-1, ::-1], (factor, factor), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert close(transposed_convolution(x, kernel), expected, 1e-6)


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_a_deconvolution_begins_as_bilinear_interpolation(factor: int, key: jax.Array):
    x, half = jax.random.normal(key, (2, 5, 4, 3)), factor // 2
    kernel = bilinear(key, (2 * factor, 2 * factor, 3, 3))
    ours = transposed_convolution(x, kernel)[:, half:-half, half:-half]
    expected = jax.image.resize(x, (2, 5 * factor, 4 * factor, 3), "bilinear")
    assert ours.shape == expected.shape
    inner = slice(half, -half)  # beyond, the one meets zeros and the other the edge again
    assert close(ours[:, inner, inner], expected[:, inner, inner], 1e-6)


# --- FCN ---


@pytest.mark.parametrize(("height", "width"), [(37, 53), (64, 64), (1, 1), (33, 96)])
@pytest.mark.parametrize("geometry", [PAPER, SAME], ids=["paper", "same"])
@pytest.mark.parametrize("stride", STRIDES)
def test_any_size_in_gives_the_same_size_out(stride: int, geometry: Geometry, height: int, width: int):
    net = Fcn(classes=3, stride=stride, backbone=TINY, hidden=(5,), geometry=geometry)
    logits, variables = jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), x, train=False), jnp.zeros((2, height, width, 3))
    )
    assert (logits.shape, logits.dtype) == ((2, height, width, 3), jnp.float32)
    elsewhere = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), jnp.zeros((1, 80, 40, 3)))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, elsewhere)  # whatever the size


@pytest.mark.parametrize(("geometry", "side"), [(PAPER, 58), (SAME, 64)], ids=["paper", "same"])
@pytest.mark.parametrize("stride", STRIDES)
def test_maps_lie_in_register(stride: int, geometry: Geometry, side: int):
    """A net of symmetric kernels, run on the mirrored picture, gives the mirrored logits: no map is off by a cell.

    Sides are such that every pool halves the padded picture evenly: 58 + 2 · 99 = 256.
    """
    net = Fcn(classes=3, stride=stride, backbone=TINY, hidden=(5,), geometry=geometry, skip_scale=(1.0, 1.0))
    variables = fill(net)
    symmetric = tree.map_with_path(
        lambda path, x: (x + x[::-1] + x[:, ::-1] + x[::-1, ::-1]) / 2 if path.endswith("kernel") else x, variables
    )
    x = jnp.asarray(image(side, side))
    logits = run(net, symmetric, x)
    assert close(run(net, symmetric, x[:, ::-1, ::-1])[:, ::-1, ::-1], logits, 1e-5)
    assert not close(run(net, symmetric, x[:, ::-1, ::-1]), logits, 1e-2)


def test_an_fcn_begins_with_an_even_guess():
    backbone = VggBackbone(widths=(2,) * 5, depths=(1,) * 5)
    net, x = Fcn(classes=3, backbone=backbone, hidden=(), window=1), jnp.asarray(image(32, 32))
    logits, _ = jax.jit(lambda k: net.init_with_output(k, x, train=False))(jax.random.key(0))
    assert not np.any(logits)


@pytest.mark.parametrize("margin", [0, 70])
def test_a_geometry_that_leaves_pixels_without_scores_is_refused(margin: int):
    geometry = Geometry(margin=margin, multiple=1, padding="VALID")  # 0: fc6 fits nowhere; 70: not over the border
    with pytest.raises(UserError, match="without scores"):
        fill(Fcn(stride=32, backbone=TINY, hidden=(), geometry=geometry))


def test_a_backbone_of_other_strides_is_refused():
    with pytest.raises(UserError, match="gives 3 maps"):
        fill(Fcn(backbone=SmallBackbone(widths=(4, 4, 4), depths=(1, 1, 1))))


NETS = pytest.mark.parametrize(
    "net",
    [
        Fcn(classes=3, backbone=TINY, hidden=(5,), window=3, skip_scale=(1.0, 1.0)),
        Fcn(classes=3, backbone=VggBackbone(widths=WIDTHS, depths=(1,) * 5), hidden=(5, 4), skip_scale=(1.0, 1.0)),
        Cnn(classes=3, widths=(4, 6), hidden=(10,)),
        Vgg(classes=3, widths=(4, 6), depths=(2, 1), hidden=(10, 9)),
    ],
    ids=["fcn small", "fcn vgg", "cnn", "vgg"],
)


def gradient(net: nn.Module, variables: Tree, x: jax.Array, **options: int) -> Tree:
    """Of a weighted sum of the logits, in training and with the same dropout each time."""

    def loss(params: Tree) -> jax.Array:
        logits, _ = net.apply(
            {**variables, "params": params}, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}
        )
        return jnp.sum(logits * jnp.cos(jnp.arange(logits.size)).reshape(logits.shape))

    return jax.jit(jax.grad(loss), compiler_options=options)(variables["params"])


@NETS
def test_every_parameter_gets_a_gradient(net: nn.Module):
    grads = gradient(net, fill(net), jnp.asarray(image(64, 64)))
    assert [path for path, g in tree.leaves(grads) if not np.any(g)] == []


@NETS
def test_bfloat16_computes_nearly_the_same_with_float32_parameters(net: nn.Module):
    x = jnp.asarray(image(64, 64))
    low = net.clone(dtype="bfloat16")
    variables = jax.eval_shape(lambda: low.init(jax.random.key(0), x, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    exact, rough = run(net, fill(net), x), run(low, fill(net), x)
    assert rough.dtype == jnp.float32
    assert close(rough, exact, 0.05)
    assert not close(rough, exact, 1e-5)


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(TINY, id="small", marks=pytest.mark.by_hand),
        pytest.param(VggBackbone(widths=(4, 6), depths=(2, 1)), id="vgg"),
    ],
)
def test_remat_gives_the_same_gradients(net: nn.Module):
    class LastMap(nn.Module):
        features: nn.Module

        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            return self.features(x, train=train)[-1]

    plain, again = LastMap(net), LastMap(net.clone(remat=True))
    variables, x = fill(plain), jnp.asarray(image(32, 32))
    assert "remat" in str(jax.make_jaxpr(lambda v: again.apply(v, x, train=False))(variables))
    # Unoptimized: on some CPUs fused code rounds the second pass otherwise, and a maximum then lies elsewhere.
    ours, expected = (gradient(net, variables, x, xla_backend_optimization_level=0) for net in (again, plain))
    for (path, g), e in zip(tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert np.abs(g - e).max() <= 1e-4 * np.abs(e).max(), path
