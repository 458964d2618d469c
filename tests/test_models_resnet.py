"""ResNet, FCN on ResNet, DeepLabV3+ and U-Net: parity with torch, and the laws that all of them obey."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.resnet_state import value
from golden.weights import image

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.deeplab import AtrousPyramid, DeepLabV3Plus
from jaxgen.models.fcn_resnet import FcnResnet
from jaxgen.models.resnet import CIFAR, ResNet
from jaxgen.models.unet import Nearest, Transposed, Unet
from jaxgen.nn import norm, resize
from jaxgen.nn.resnet import BasicBlock, Bottleneck, ResNetBackbone

GOLDEN = pathlib.Path(__file__).parent / "golden"
SIZES = ((64, 64), (37, 53))

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# Small nets of each kind, for the laws.
SMALL = {
    "fcn": FcnResnet(classes=5, depth=10, width=4, output_stride=8),
    "deeplab": DeepLabV3Plus(classes=5, depth=14, width=4, features=8, low_features=6, rates=(1, 2, 3)),
    "unet": Unet(classes=5, widths=(4, 8, 12)),
    "unet_nearest": Unet(classes=5, widths=(4, 8), upsample=Nearest()),
}
every_net = pytest.mark.parametrize("name", SMALL)


def shapes(net: nn.Module, height: int = 64, width: int = 64, channels: int = 3) -> Any:
    dummy = jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32)
    return jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), dummy)


# From flax paths to the names and layouts of torch.

Rules = tuple[tuple[str, str], ...]

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}

RESNET: Rules = (
    (r"stem/conv", "conv1"),
    (r"stem/norm", "bn1"),
    (r"stage(\d)_(\d+)/conv(\d)/conv", r"layer\1.\2.conv\3"),
    (r"stage(\d)_(\d+)/conv(\d)/norm", r"layer\1.\2.bn\3"),
    (r"stage(\d)_(\d+)/shortcut/conv", r"layer\1.\2.downsample.0"),
    (r"stage(\d)_(\d+)/shortcut/norm", r"layer\1.\2.downsample.1"),
)
CLASSIFIER: Rules = (*RESNET, ("head", "fc"))
FCN: Rules = (
    *((f"backbone/{path}", f"backbone.{name}") for path, name in RESNET),
    *(
        (f"{path}/{part}", f"{name}.{index}")
        for path, name in (("head", "classifier"), ("aux_head", "aux_classifier"))
        for part, index in (("conv/conv", 0), ("conv/norm", 1), ("logits", 4))
    ),
)
DEEPLAB: Rules = (
    *((f"backbone/{path}", f"encoder.{name}") for path, name in RESNET),
    ("pyramid/point/conv", "decoder.aspp.0.convs.0.0"),
    ("pyramid/point/norm", "decoder.aspp.0.convs.0.1"),
    *(
        (f"pyramid/atrous{i}/{part}", f"decoder.aspp.0.convs.{i + 1}.{index}")
        for i in range(3)
        for part, index in (("depthwise", "0.0"), ("pointwise/conv", "0.1"), ("pointwise/norm", "1"))
    ),
    ("pyramid/image/conv", "decoder.aspp.0.convs.4.1"),
    ("pyramid/image/norm", "decoder.aspp.0.convs.4.2"),
    ("pyramid/project/conv", "decoder.aspp.0.project.0"),
    ("pyramid/project/norm", "decoder.aspp.0.project.1"),
    ("smooth/depthwise", "decoder.aspp.1.0"),
    ("smooth/pointwise/conv", "decoder.aspp.1.1"),
    ("smooth/pointwise/norm", "decoder.aspp.2"),
    ("low/conv", "decoder.block1.0"),
    ("low/norm", "decoder.block1.1"),
    ("fuse/depthwise", "decoder.block2.0.0"),
    ("fuse/pointwise/conv", "decoder.block2.0.1"),
    ("fuse/pointwise/norm", "decoder.block2.1"),
    ("logits", "segmentation_head.0"),
)
UNET: Rules = (
    (r"(down\d|up\d|bottom)/conv(\d)/(conv|norm)", r"\1.conv\2.\3"),
    (r"upsample(\d)", r"upsample\1"),
    ("logits", "logits"),
)
UNET_NEAREST: Rules = ((r"upsample(\d)", r"upsample\1.1"), *UNET)


def torch_name(path: str, rules: Rules) -> str:
    """Translate "params/stem/conv/kernel" into "conv1.weight"."""
    _, module, leaf = re.fullmatch(r"([^/]+)/(.+)/([^/]+)", path).groups()
    for pattern, name in rules:
        if match := re.fullmatch(pattern, module):
            return f"{match.expand(name)}.{LEAVES[leaf]}"
    raise KeyError(f"no torch name for {path}")


def torch_variables(net: nn.Module, rules: Rules, last: str = "bn3") -> Any:
    """Make the variables of `net` from the values that the torch reference was filled with."""

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        name, shape = torch_name(path, rules), like.shape
        if name.startswith("upsample") and shape[1:3] == (2, 2):  # transposed convolution: torch has (in, out, kh, kw)
            return value(name, (shape[0], shape[3], 2, 2), last).transpose(0, 2, 3, 1)
        if len(shape) == 4:
            return value(name, (shape[3], shape[2], shape[0], shape[1]), last).transpose(2, 3, 1, 0)
        return value(name, shape[::-1], last).T

    return tree.map_with_path(leaf, shapes(net))


def plain_variables(net: nn.Module, channels: int = 3) -> Any:
    """Make variables of order one for any net here; fresh ones will not do where a law is about every parameter,
    because the last scale of each residual block starts at zero."""

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        kind = LEAVES[path.rsplit("/", 1)[1]]
        return value(f"{path}.{kind}", like.shape[::-1], "none").T

    return tree.map_with_path(leaf, shapes(net, channels=channels))


def relative(ours: Any, reference: Any) -> float:
    reference = np.asarray(reference)
    assert np.asarray(ours).shape == reference.shape
    assert np.abs(reference).max() > 0
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference).max())


# Parity with torch.


@pytest.mark.parametrize(
    ("net", "parameters"),
    [
        (ResNet(depth=18), 11_689_512),  # torchvision.models, "num_params" of the published weights
        (ResNet(depth=34), 21_797_672),
        (ResNet(depth=50), 25_557_032),
        (ResNet(depth=101), 44_549_160),
        (ResNet(depth=152), 60_192_808),
        (ResNet(depth=18, classes=10, stem=CIFAR), 11_173_962),  # kuangliu/pytorch-cifar
        (FcnResnet(classes=21), 35_322_218),
        (FcnResnet(classes=21, depth=101), 54_314_346),
    ],
)
def test_as_many_parameters_as_published(net: nn.Module, parameters: int) -> None:
    assert tree.count(shapes(net)["params"]) == parameters


@pytest.mark.parametrize(
    ("name", "net", "rules", "last", "every"),
    [
        ("resnet50", ResNet(depth=50), CLASSIFIER, "bn3", 1),
        ("fcn", FcnResnet(classes=5), FCN, "bn3", 2),
        ("deeplab", DeepLabV3Plus(classes=5, depth=18, features=32, rates=(1, 2, 3)), DEEPLAB, "bn2", 1),
        ("unet", Unet(classes=5, widths=(8, 16, 32)), UNET, "bn3", 1),
    ],
)
def test_equals_torch(name: str, net: nn.Module, rules: Rules, last: str, every: int) -> None:
    golden = np.load(GOLDEN / f"resnet_{name}.npz")
    variables = torch_variables(net, rules, last)
    assert tree.count(variables["params"]) == golden["parameters"]

    forward = jit(lambda v, x: net.apply(v, x, train=False, mutable=["aux"]))
    for height, width in SIZES:
        x = image(height, width, batch=2 if name == "resnet50" else 1)
        logits, sown = forward(variables, x)
        logits = logits if logits.ndim == 2 else logits[:, ::every, ::every]
        assert relative(logits, golden[f"logits_{height}x{width}"]) < 1e-4
        if name == "fcn":
            (aux,) = sown["aux"]["logits"]
            assert relative(aux[:, ::every, ::every], golden[f"aux_{height}x{width}"]) < 1e-4


def test_training_equals_torch() -> None:
    golden = np.load(GOLDEN / "resnet_training.npz")
    net = Unet(classes=3, widths=(4, 8), upsample=Nearest())
    old = torch_variables(net, UNET_NEAREST)
    x = image(32, 48)
    logits, new = jit(lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"]))(old, x)
    assert relative(logits, golden["logits"]) < 1e-4

    before = dict(tree.leaves({"batch_stats": old["batch_stats"]}))
    for path, after in tree.leaves({"batch_stats": new["batch_stats"]}):
        if path.endswith("var"):  # torch's running variance is the unbiased one, n / (n - 1) of ours
            n = 2 * 32 * 48 // (4 if "bottom" in path else 1)
            after = 0.9 * before[path] + (after - 0.9 * before[path]) * n / (n - 1)
        assert relative(after, golden[torch_name(path, UNET_NEAREST)]) < 1e-5
        assert relative(before[path], golden[torch_name(path, UNET_NEAREST)]) > 1e-2  # it did move


# Laws.


@every_net
@pytest.mark.parametrize("size", [(64, 64), (37, 53), (32, 48), (1, 1), (5, 130)])
def test_size_out_is_size_in(name: str, size: tuple[int, int]) -> None:
    net = SMALL[name]
    x = jax.ShapeDtypeStruct((2, *size, 3), jnp.float32)
    logits = jax.eval_shape(lambda v, x: net.apply(v, x, train=False), shapes(net), x)
    assert logits.shape == (2, *size, 5)
    assert logits.dtype == jnp.float32


@every_net
def test_parameters_do_not_depend_on_size(name: str) -> None:
    variables = shapes(SMALL[name], 64, 64)
    assert set(variables) == {"params", "batch_stats"}  # and no sown output
    assert variables == shapes(SMALL[name], 37, 129)


@pytest.mark.parametrize("depth", [10, 14])
def test_dense_features_hold_the_strided_ones(depth: int) -> None:
    """Atrous consistency: at a finer output stride, every r-th cell is the coarser net's, with the same weights."""

    def c5(output_stride: int) -> np.ndarray:
        net = ResNetBackbone(depth=depth, width=8, output_stride=output_stride)
        features = jit(lambda v, x: net.apply(v, x, train=False))
        return np.asarray(features(plain_variables(net), image(75, 101, batch=1))[-1])

    strided = c5(32)
    assert strided.shape[1:3] == (3, 4)
    for output_stride in (16, 8, 4):
        every = 32 // output_stride
        assert relative(c5(output_stride)[:, ::every, ::every], strided) < 1e-5


def test_stem_decides_the_strides() -> None:
    def sizes(net: ResNetBackbone) -> list[int]:
        x = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        maps = jax.eval_shape(lambda v, x: net.apply(v, x, train=False), shapes(net), x)
        return [m.shape[1] for m in maps]

    assert sizes(ResNetBackbone(depth=10)) == [32, 16, 8, 4, 2]
    assert sizes(ResNetBackbone(depth=10, output_stride=8)) == [32, 16, 8, 8, 8]
    assert sizes(ResNetBackbone(depth=10, stem=CIFAR)) == [64, 64, 32, 16, 8]


@pytest.mark.parametrize("block", [BasicBlock(4, 1, 1, 1, "float32"), Bottleneck(1, 1, 1, 1, "float32")])
def test_residual_blocks_start_as_the_identity(block: nn.Module) -> None:
    x = jnp.abs(image(5, 6, channels=4))
    y, variables = block.init_with_output(jax.random.key(0), x, False)
    np.testing.assert_array_equal(y, x)
    assert all(leaf.any() for path, leaf in tree.leaves(variables["params"]) if path.endswith("kernel"))


def loss_and_gradient(net: nn.Module) -> Callable[..., Any]:
    """Mean square of all logits, auxiliary ones included; its gradient, and the batch statistics after it."""

    def loss(params: Any, stats: Any, x: Any) -> Any:
        logits, new = net.apply(
            {"params": params, "batch_stats": stats},
            x,
            train=True,
            mutable=["batch_stats", "aux"],
            rngs={"dropout": jax.random.key(1)},
        )
        maps = [logits, *jax.tree.leaves(new.get("aux", {}))]
        return sum(jnp.mean(m**2) for m in maps), new["batch_stats"]

    return jax.value_and_grad(loss, has_aux=True)


@functools.cache
def gradient(name: str) -> Any:
    """Loss, batch statistics and gradient of one of the small nets on three images.

    Three, because image pooling makes one value per image: of two values any normalised pair is (1, -1), and of one
    image whatever is constant over the map is taken out again by the norm that follows.
    """
    net = SMALL[name]
    variables = plain_variables(net)
    return jax.device_get(
        jit(loss_and_gradient(net))(variables["params"], variables["batch_stats"], image(32, 48, batch=3))
    )


@every_net
def test_every_parameter_gets_a_gradient(name: str) -> None:
    _, grads = gradient(name)
    for path, g in tree.leaves(grads):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 1e-6, path


def test_image_pooling_trains_on_one_image() -> None:
    net = AtrousPyramid(features=4, rates=(1,), dropout=0.1, dtype="float32")
    x = jnp.asarray(image(3, 4, batch=1))
    variables = plain_variables(net)

    def loss(params: Any, stats: Any) -> Any:
        y, new = net.apply(
            {"params": params, "batch_stats": stats},
            x,
            True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        return jnp.mean(y**2), new["batch_stats"]

    grads, stats = jit(jax.grad(loss, has_aux=True))(variables["params"], variables["batch_stats"])
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
    # A variance of one value is 0; taken into the running variance step by step, it would end as a division by 0.
    old = variables["batch_stats"]
    np.testing.assert_array_equal(stats["image"]["norm"]["var"], old["image"]["norm"]["var"])
    assert (stats["project"]["norm"]["var"] != old["project"]["norm"]["var"]).all()


def test_one_value_per_channel_is_normalised_by_the_running_statistics() -> None:
    class Norm(nn.Module):
        @nn.compact
        def __call__(self, x: Any, train: bool) -> Any:
            return norm.batch_norm(x, train, name="norm")

    variables = {
        "params": {"norm": {"scale": jnp.full(2, 3.0), "bias": jnp.full(2, 1.0)}},
        "batch_stats": {"norm": {"mean": jnp.full(2, 0.5), "var": jnp.full(2, 4.0)}},
    }
    x = jnp.array([2.5, 4.5]).reshape(1, 1, 1, 2)
    y, new = Norm().apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y[0, 0, 0], [4.0, 7.0], rtol=1e-4)
    assert new["batch_stats"]["norm"]["mean"].tolist() == variables["batch_stats"]["norm"]["mean"].tolist()
    _, new = Norm().apply(variables, jnp.concatenate([x, 2 * x]), True, mutable=["batch_stats"])
    np.testing.assert_allclose(new["batch_stats"]["norm"]["mean"], 0.45 + 0.1 * 1.5 * np.array([2.5, 4.5]), rtol=1e-5)


@every_net
def test_bfloat16_reaches_every_layer_but_the_logits(name: str) -> None:
    full, half = SMALL[name], SMALL[name].clone(dtype="bfloat16")
    assert shapes(half) == shapes(full)  # parameters and statistics stay f32
    x = jax.ShapeDtypeStruct((1, 37, 53, 3), jnp.float32)
    program = jax.make_jaxpr(lambda v, x: half.apply(v, x, train=False))(shapes(half), x)
    (logits,) = program.out_avals
    assert logits.dtype == jnp.float32
    convolutions = [e.invars[0].aval.dtype for e in program.eqns if e.primitive.name == "conv_general_dilated"]
    heads = 2 if name == "fcn" else 1
    assert len(convolutions) > 5
    assert convolutions.count(jnp.float32) == heads
    assert convolutions.count(jnp.bfloat16) == len(convolutions) - heads


def test_bfloat16_computes_close_to_float32() -> None:
    full = SMALL["unet"]
    half = full.clone(dtype="bfloat16")
    variables, x = plain_variables(full), image(37, 53, batch=1)
    exact = jit(lambda v, x: full.apply(v, x, train=False))(variables, x)
    rough = jit(lambda v, x: half.apply(v, x, train=False))(variables, x)
    assert 1e-4 < relative(rough, exact) < 0.1  # it did compute in 8 bits of mantissa, and not in fewer


@pytest.mark.parametrize("name", [pytest.param("fcn", marks=pytest.mark.by_hand), "unet"])
def test_remat_leaves_the_gradient_alone(name: str) -> None:
    net, remat = SMALL[name], SMALL[name].clone(remat=True)
    assert shapes(net) == shapes(remat)
    variables = plain_variables(net)
    arguments = variables["params"], variables["batch_stats"], image(32, 48, batch=3)
    assert "remat" in str(jax.make_jaxpr(loss_and_gradient(remat))(*arguments))
    assert "remat" not in str(jax.make_jaxpr(loss_and_gradient(net))(*arguments))
    _, wanted = gradient(name)
    _, grads = jit(loss_and_gradient(remat))(*arguments)
    largest = max(np.abs(w).max() for w in jax.tree.leaves(wanted))
    for (path, g), (_, w) in zip(tree.leaves(grads), tree.leaves(wanted), strict=True):
        assert np.abs(g - w).max() < 1e-5 * largest, path


@pytest.mark.parametrize(("levels", "channels"), [(1, 3), (2, 3), (3, 3), (4, 1), (4, 2), (4, 4), (5, 3), (6, 3)])
def test_unet_takes_any_depth_and_channels(levels: int, channels: int) -> None:
    net = Unet(classes=7, widths=(4, 5, 6, 7, 8, 9)[:levels], upsample=(Transposed(), Nearest())[levels % 2])
    x = jax.ShapeDtypeStruct((1, 37, 53, channels), jnp.float32)
    logits = jax.eval_shape(lambda v, x: net.apply(v, x, train=False), shapes(net, channels=channels), x)
    assert logits.shape == (1, 37, 53, 7)


def test_max_pool_2x2_and_its_gradient_are_those_of_the_window() -> None:
    x = jnp.asarray(image(6, 8))
    window = lambda x: nn.max_pool(x, (2, 2), strides=(2, 2))  # noqa: E731
    np.testing.assert_array_equal(resize.max_pool_2x2(x), window(x))
    ours, theirs = (jax.grad(lambda x, f=f: (f(x) ** 3).sum())(x) for f in (resize.max_pool_2x2, window))
    np.testing.assert_allclose(ours, theirs)


def test_cropping_undoes_padding() -> None:
    x = jnp.asarray(image(5, 9))
    padded = resize.pad_to_multiple(x, 4)
    assert padded.shape == (2, 8, 12, 3)
    np.testing.assert_array_equal(padded[:, :5, :9], x)
    np.testing.assert_array_equal(padded[:, 7, :9], x[:, 4])
    assert resize.pad_to_multiple(padded, 4).shape == padded.shape


@pytest.mark.parametrize(
    ("net", "cause"),
    [
        (ResNet(depth=20), "no depth 20; there are .*50"),
        (ResNet(depth=10, output_stride=2), "output_stride 2 is below"),
        (Unet(widths=()), "widths is empty"),
    ],
)
def test_mistakes_are_named(net: nn.Module, cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        shapes(net)
