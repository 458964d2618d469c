"""DCGAN and SNGAN: parity with torch's, the laws that both obey, and spectral normalisation against numpy's SVD."""

import functools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import dcgan_state as golden
from golden.weights import array
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen import tree
from jaxgen.config import codec
from jaxgen.errors import UserError
from jaxgen.models.dcgan import BatchNorm, DcganDiscriminator, DcganGenerator, NoNorm, Norm, SpectralNorm
from jaxgen.models.sngan import SnganDiscriminator, SnganGenerator
from jaxgen.nn.conditioning import ClassEmbed, one_hot
from jaxgen.nn.spectral import power_iteration, spectral

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "dcgan.npz")

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

GENERATORS: dict[str, Any] = {
    "dcgan": DcganGenerator(latent=golden.LATENT, classes=3, widths=(6, 4)),
    "sngan": SnganGenerator(latent=golden.LATENT, classes=3, width=4, stages=1),
}
DISCRIMINATORS: dict[str, Any] = {
    "batch": DcganDiscriminator(classes=3, widths=(4, 6)),
    "none": DcganDiscriminator(classes=3, widths=(4, 6), norm=NoNorm()),
    "spectral": DcganDiscriminator(classes=3, widths=(4, 6), norm=SpectralNorm()),
    "sngan": SnganDiscriminator(classes=3, width=4, blocks=3),
}
Z, IMAGE, LABEL = jnp.asarray(golden.Z), jnp.asarray(golden.IMAGE), jnp.asarray(golden.LABEL)
NOISE = jax.random.split(jax.random.key(0), 4)
every_generator = pytest.mark.parametrize("name", GENERATORS)
every_discriminator = pytest.mark.parametrize("name", DISCRIMINATORS)


def condition(label: Any, classes: int = 3) -> Any:
    return {"label": one_hot(label, classes)} if classes else {}


def inputs(net: nn.Module) -> tuple[Any, ...]:
    given = condition(LABEL, net.classes)
    return (Z, given, NOISE) if hasattr(net, "latent") else (IMAGE, given)


def variables_of(net: nn.Module) -> Any:
    return jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs(net), train=False))


def filled(net: nn.Module) -> Any:
    """Variables of order one, rather than the small ones that training starts from."""

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> jax.Array:
        noise = array(path, like.shape[::-1], None if len(like.shape) > 1 else 0.2).T
        return jnp.asarray(noise + (1.0 if path.endswith(("scale", "var")) else 0.0))

    return tree.map_with_path(leaf, variables_of(net))


def relative(ours: Any, reference: Any) -> float:
    ours, reference = np.asarray(ours), np.asarray(reference)
    assert ours.shape == reference.shape
    return float(np.abs(ours - reference).max() / np.abs(reference).max())


# Parity with torch.


def kernel(w: np.ndarray) -> np.ndarray:
    return w.transpose(2, 3, 1, 0) if w.ndim == 4 else w.T


def batch_norm(value: Any, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    moments = {"mean": value(f"{name}.running_mean"), "var": value(f"{name}.running_var")}
    return {"scale": value(f"{name}.weight"), "bias": value(f"{name}.bias")}, moments


def dcgan_variables(net: str) -> Any:
    up = net == "dcgan_generator"
    widths = golden.GENERATOR if up else golden.DISCRIMINATOR
    ins, outs = ((golden.LATENT, *widths), (*widths, 3)) if up else ((3, *widths), (*widths, 1))
    get = lambda entry, shape: golden.value(net, entry, shape)  # noqa: E731
    params, stats = {}, {}
    for i, (before, after) in enumerate(zip(ins, outs, strict=True)):
        shape = (before, after, 4, 4) if up else (after, before, 4, 4)
        # Of layers, activations and norms in a row, the generator's convolutions are 0, 3, …, the other's 0, 2, 5, ….
        number = 3 * i if up else max(0, 3 * i - 1)
        weight = get(f"{number}.weight", shape)
        if up:
            first = weight.transpose(0, 2, 3, 1).reshape(before, -1)
            params["in" if i == 0 else "out" if after == 3 else f"up{i}"] = {
                "kernel": first if i == 0 else weight.transpose(2, 3, 0, 1)
            }
        else:
            last = after == 1
            params["out" if last else f"down{i}"] = {
                "kernel": kernel(weight).reshape(-1, 1) if last else kernel(weight)
            }
        if after in widths and (up or i):
            value = functools.partial(lambda entry, shape: get(entry, shape), shape=(after,))
            params[f"norm{i}"], stats[f"norm{i}"] = batch_norm(value, str(number + 1))
    return {"params": params, "batch_stats": stats}


def sngan_generator_variables(net: str) -> Any:
    get = functools.partial(golden.value, net)
    c = golden.WIDTH
    start, shift = get("l1.weight", (16 * c, golden.LATENT)), get("l1.bias", (16 * c,))
    first = start.reshape(c, 4, 4, -1).transpose(3, 1, 2, 0).reshape(golden.LATENT, -1)
    norm, moments = batch_norm(lambda entry: get(entry, (c,)), "b5")
    params = {
        "in": {"kernel": first, "bias": shift.reshape(c, 4, 4).transpose(1, 2, 0).reshape(-1)},
        "norm": norm,
        "out": {"kernel": kernel(get("c5.weight", (3, c, 3, 3))), "bias": get("c5.bias", (3,))},
    }
    stats = {"norm": moments}
    for i in range(2):
        block, params[f"block{i}"], stats[f"block{i}"] = f"block.{i}", {}, {}
        for name, theirs, size in (("conv0", "c1", 3), ("conv1", "c2", 3), ("skip", "c_sc", 1)):
            params[f"block{i}"][name] = {"kernel": kernel(get(f"{block}.{theirs}.weight", (c, c, size, size)))}
        for j in range(2):
            name = f"{block}.b{j + 1}"
            table = get(f"{name}.embed.weight", (golden.CLASSES, 2 * c))
            params[f"block{i}"][f"norm{j}"] = {
                "scale": {"embedding": table[:, :c]},
                "shift": {"embedding": table[:, c:]},
            }
            _, moments = batch_norm(lambda entry, name=name: get(entry, (c,)), f"{name}.bn")
            stats[f"block{i}"][f"norm{j}"] = {"norm": moments}
    return {"params": params, "batch_stats": stats}


def mimicry(path: str) -> str:
    """Translate "block0/conv1/kernel" into "block.0.c2.weight", and "…/conv1_spectral/u" into "….c2.sn_u"."""
    for ours, theirs in {
        "block": "block.", "conv0": "c1", "conv1": "c2", "skip": "c_sc", "out": "l5", "label": "l_y",
        "_spectral/u": ".sn_u", "/kernel": ".weight", "/embedding": ".weight", "/": ".",
    }.items():  # fmt: skip
        path = path.replace(ours, theirs)
    return path


def sngan_discriminator_variables(net: str) -> Any:
    get = functools.partial(golden.value, net)

    def leaf(path: str, like: jax.ShapeDtypeStruct) -> np.ndarray:
        collection, _, rest = path.partition("/")
        name, shape = mimicry(rest), like.shape
        if name.startswith("l_y"):
            table = get("l_y.weight", (golden.CLASSES, golden.WIDTH))
            return table if collection == "params" else np.linalg.svd(table)[2][0]
        if collection == "spectral":
            return get(name, (1, *shape))[0]
        return get(name, shape) if len(shape) == 1 else kernel(get(name, (*shape[::-1][:2], *shape[:-2])))

    shapes = variables_of(SnganDiscriminator(classes=golden.CLASSES, width=golden.WIDTH))
    return tree.map_with_path(leaf, shapes)


def torch_case(name: str) -> tuple[Any, Any]:
    sngan = functools.partial(SnganGenerator, classes=golden.CLASSES, width=golden.WIDTH, stages=2)
    net, variables = {
        "dcgan_generator": (DcganGenerator(latent=golden.LATENT, widths=golden.GENERATOR), dcgan_variables),
        "dcgan_discriminator": (DcganDiscriminator(widths=golden.DISCRIMINATOR), dcgan_variables),
        "sngan_generator": (sngan(latent=golden.LATENT), sngan_generator_variables),
        "sngan_discriminator": (
            SnganDiscriminator(classes=golden.CLASSES, width=golden.WIDTH),
            sngan_discriminator_variables,
        ),
    }[name]
    return net, jax.tree.map(jnp.asarray, variables(name))


@pytest.mark.parametrize("name", ["dcgan_generator", "dcgan_discriminator", "sngan_generator", "sngan_discriminator"])
def test_equals_torch(name: str) -> None:
    net, variables = torch_case(name)
    shapes = variables_of(net)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes)

    def both(variables: Any) -> Any:
        train = lambda v: net.apply(v, *inputs(net), train=True, mutable=list(v))  # noqa: E731
        return net.apply(variables, *inputs(net), train=False), *train(variables)

    evaluated, trained, changed = jit(both)(variables)
    assert relative(evaluated, GOLDEN[f"{name}_eval"]) < 1e-4
    assert relative(trained, GOLDEN[f"{name}_train"]) < 1e-4
    jax.tree.map(np.testing.assert_array_equal, changed["params"], variables["params"])


def test_gradients_and_vectors_of_sngan_equal_torchs() -> None:
    net, variables = torch_case("sngan_discriminator")

    def loss(params: Any) -> Any:
        y, changed = net.apply({**variables, "params": params}, *inputs(net), train=True, mutable=["spectral"])
        return (y * golden.COTANGENT).sum(), changed

    gradient, changed = jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, leaf in tree.leaves(gradient):
        expected = GOLDEN[f"sngan_gradient/{mimicry(path)}"]
        expected = expected if path.startswith("label") or expected.ndim == 1 else kernel(expected)
        assert relative(leaf, expected) < 1e-4, path
    for path, leaf in tree.leaves(changed["spectral"]):
        if not path.startswith("label"):
            assert relative(leaf, GOLDEN[f"sngan_u/{mimicry(path)}"][0]) < 1e-4, path


@pytest.mark.parametrize(
    ("name", "net", "side", "difference"),
    [
        ("dcgan_generator", DcganGenerator(), 0, 0),
        ("dcgan_discriminator", DcganDiscriminator(), 64, 0),
        ("sngan_generator", SnganGenerator(), 0, 9 * 256),  # biases that batch norm takes away
        ("sngan_discriminator", SnganDiscriminator(), 32, 0),
    ],
)
def test_as_many_parameters_as_in_torch(name: str, net: Any, side: int, difference: int) -> None:
    args = (jnp.zeros((1, side, side, 3)), {}) if side else (jnp.zeros((1, net.latent)), {}, NOISE[:1])
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *args, train=False))
    assert tree.count(shapes["params"]) == GOLDEN[f"{name}_parameters"] - difference


# Laws of the nets.


@every_generator
def test_a_sample_is_a_function_of_its_own_z_and_label(name: str) -> None:
    net = GENERATORS[name]
    f = jit(
        lambda z, label, noise, t: net.apply(filled(net), z, condition(label), noise, train=False, truncation=t),
        static_argnums=3,
    )
    images, side = f(Z, LABEL, NOISE, 1.0), {"dcgan": 16, "sngan": 8}[name]
    assert (images.shape, images.dtype) == ((4, side, side, 3), jnp.float32)
    assert 0.01 < np.abs(images).max() <= 1
    order = np.array([3, 1, 0, 2])
    np.testing.assert_allclose(f(Z[order], LABEL[order], NOISE, 1.0), images[order], atol=1e-6)
    changed = np.abs(f(Z, LABEL.at[1].set(2), NOISE, 1.0) - images).max((1, 2, 3))
    assert changed[1] > 1e-3 > 1e-6 > changed[np.array([0, 2, 3])].max()
    np.testing.assert_allclose(f(Z, LABEL, NOISE, 0.5), f(0.5 * Z, LABEL, NOISE, 1.0), atol=1e-6)


@functools.cache
def gradients(generator: str, discriminator: str) -> Any:
    nets = {"g": GENERATORS[generator], "d": DISCRIMINATORS[discriminator]}
    start = {name: filled(net) for name, net in nets.items()}

    def loss(params: Any) -> Any:
        run = lambda name, *args: nets[name].apply(  # noqa: E731
            {**start[name], "params": params[name]}, *args, train=True, mutable=["batch_stats", "spectral"]
        )[0]
        return jnp.mean((run("d", run("g", Z, condition(LABEL), NOISE), condition(LABEL)) - 1.0) ** 2)

    return jax.device_get(jit(jax.grad(loss))({name: variables["params"] for name, variables in start.items()}))


@pytest.mark.parametrize(("generator", "discriminator"), [("dcgan", "batch"), ("sngan", "sngan")])
def test_every_parameter_gets_a_gradient(generator: str, discriminator: str) -> None:
    for path, leaf in tree.leaves(gradients(generator, discriminator)):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 1e-5, path


@every_discriminator
def test_collections_are_those_of_the_norm(name: str) -> None:
    expected = {"batch": {"params", "batch_stats"}, "none": {"params"}}.get(name, {"params", "spectral"})
    shapes = variables_of(DISCRIMINATORS[name])
    assert set(shapes) == expected
    assert {path.rpartition("/")[2] for path, _ in tree.leaves(shapes.get("batch_stats", {}))} <= {"mean", "var"}
    weights = [path for path, leaf in tree.leaves(shapes["params"]) if leaf.ndim > 1]
    assert len(jax.tree.leaves(shapes.get("spectral", {}))) == (len(weights) if "spectral" in expected else 0)


def test_conditioning_is_a_projection() -> None:
    net = DISCRIMINATORS["none"]
    params = filled(net)["params"]
    table = params.pop("label")["embedding"]

    @jit
    def f(table: Any, k: Any) -> Any:
        return net.apply(
            {"params": {**params, "label": {"embedding": table}}}, IMAGE, condition(jnp.full(4, k)), train=False
        )

    bare = net.clone(classes=0).apply({"params": params}, IMAGE, {}, train=False)
    shift = [f(table, k) - bare for k in range(3)]
    np.testing.assert_allclose(f(np.full_like(table, 0), 1), bare, rtol=1e-5)
    np.testing.assert_allclose(f(table + table[::-1], 0) - bare, shift[0] + shift[2], rtol=1e-4, atol=1e-4)
    assert min(np.abs(shift[i] - shift[j]).min() for i in range(3) for j in range(i)) > 1e-3


@every_generator
def test_batch_statistics_are_of_the_batch_on_all_devices(name: str) -> None:
    pairs = [(GENERATORS[name], (Z, condition(LABEL), NOISE))]
    if name == "dcgan":
        pairs.append((DISCRIMINATORS["batch"], (IMAGE, condition(LABEL))))
    for net, args in pairs:
        variables = filled(net)
        f = jit(lambda v, args, net=net: net.apply(v, *args, train=True, mutable=["batch_stats"]))
        one = f(variables, args)
        mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        spread = jax.device_put(args, NamedSharding(mesh, PartitionSpec("data")))
        four = f(jax.device_put(variables, NamedSharding(mesh, PartitionSpec())), spread)
        assert len(four[0].sharding.device_set) == 4
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), one, four)
        moved = [
            relative(leaf, old)
            for leaf, old in zip(*map(jax.tree.leaves, (one[1]["batch_stats"], variables["batch_stats"])), strict=True)
        ]
        assert min(moved) > 1e-3


@pytest.mark.parametrize("net", [*GENERATORS.values(), *DISCRIMINATORS.values()], ids=[*GENERATORS, *DISCRIMINATORS])
def test_bfloat16_reaches_the_layers_and_no_parameter(net: Any) -> None:
    rough = net.clone(dtype="bfloat16")
    shapes = variables_of(rough)
    assert shapes == variables_of(net)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {np.dtype("float32")}
    apply = lambda v: rough.apply(v, *inputs(net), train=True, mutable=["batch_stats", "spectral"])  # noqa: E731
    assert {leaf.dtype for leaf in jax.tree.leaves(jax.eval_shape(apply, shapes))} == {np.dtype("float32")}
    assert "bf16" in str(jax.make_jaxpr(apply)(shapes))


@pytest.mark.parametrize(("widths", "side"), [((8,), 8), ((8, 4), 16), ((8, 4, 4), 32), ((8, 8, 4, 4), 64)])
def test_one_width_for_each_doubling(widths: tuple[int, ...], side: int) -> None:
    for generator, discriminator in (
        (DcganGenerator(latent=3, channels=1, widths=widths), DcganDiscriminator(widths=widths[::-1])),
        (SnganGenerator(latent=3, channels=1, width=4, stages=len(widths)), SnganDiscriminator(width=4)),
    ):
        made = jax.eval_shape(
            lambda g=generator: g.init_with_output(jax.random.key(0), Z[:, :3], {}, NOISE, train=False)
        )
        assert made[0].shape == (4, side, side, 1)
        logits = jax.eval_shape(
            lambda x, d=discriminator: d.init_with_output(jax.random.key(0), x, {}, train=False), made[0]
        )
        assert logits[0].shape == (4,)


@pytest.mark.parametrize(
    ("net", "shape", "cause"),
    [
        (DcganDiscriminator(widths=(4, 4)), (8, 8, 1), "2 widths are for images of 16×16, not 8×8, which take 1"),
        (DcganDiscriminator(widths=(4, 4)), (32, 32, 1), "not 32×32, which take 3"),
        (DcganDiscriminator(widths=(4, 4)), (30, 30, 1), "30×30 cannot be halved .* to 32×32"),
        (DcganDiscriminator(widths=(4, 4)), (16, 8, 1), "not 16×8, which take 1"),
        (DcganDiscriminator(widths=(4, 4)), (4, 4, 1), "not 4×4; resize them"),
        (DcganDiscriminator(widths=()), (4, 4, 1), "0 widths"),
        (DcganDiscriminator(), (2,), "not 2; resize them"),
        (SnganDiscriminator(), (30, 32, 3), "30×32 cannot be halved 2 times; resize them to multiples of 4"),
        (SnganDiscriminator(), (2,), "images of 2 cannot be halved"),
        (SnganDiscriminator(halvings=5), (32, 32, 3), r"halvings is 5; it must be 1\.\.4"),
        (SnganDiscriminator(halvings=0), (32, 32, 3), r"halvings is 0; it must be 1\.\.4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(net: nn.Module, shape: tuple[int, ...], cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((2, *shape)), {}, train=False))


@pytest.mark.parametrize("net", [*GENERATORS.values(), DISCRIMINATORS["none"], DISCRIMINATORS["sngan"]])
def test_labels_fit_the_classes(net: Any) -> None:
    for other, given, cause in (
        (net, {}, "3 classes and got no label"),
        (net.clone(classes=0), condition(LABEL), "got a label and has classes=0"),
        (net, condition(LABEL, 4), "5 columns where 3 classes and the null class need 4"),
        (net, {"label": LABEL}, r"a label of shape \(4,\); it takes class weights \[b 4\]"),
        (net, {**condition(LABEL), "tokens": LABEL}, "no condition named tokens"),
    ):
        args = (Z, given, NOISE) if hasattr(net, "latent") else (IMAGE, given)
        with pytest.raises(UserError, match=cause):
            jax.eval_shape(lambda other=other, args=args: other.init(jax.random.key(0), *args, train=False))


def test_a_generator_without_widths_is_refused() -> None:
    with pytest.raises(UserError, match="widths is empty"):
        variables_of(DcganGenerator(widths=(), classes=3))


def test_dcgan_starts_as_in_the_paper() -> None:
    net = DcganDiscriminator(widths=(32, 64))
    params = jit(lambda: net.init(jax.random.key(1, impl="rbg"), IMAGE, {}, train=False))()["params"]
    for path, leaf in tree.leaves(params):
        mean, std = {"kernel": (0.0, 0.02), "scale": (1.0, 0.02), "bias": (0.0, 0.0)}[path.rpartition("/")[2]]
        assert leaf.std() == pytest.approx(std, rel=5 / np.sqrt(2 * leaf.size)), path
        assert leaf.mean() == pytest.approx(mean, abs=5 * std / np.sqrt(leaf.size)), path


def test_class_embed_mixes_rows_of_its_table_and_the_null_class_is_zero() -> None:
    net, table = ClassEmbed(3, 5), array("table", (3, 5), 1.0)
    run = lambda weights: net.apply({"params": {"embedding": table}}, weights)  # noqa: E731
    np.testing.assert_array_equal(run(one_hot(jnp.array([2, 0, 3]), 3)), [table[2], table[0], np.zeros(5)])
    np.testing.assert_allclose(run(jnp.array([[0.5, 0.0, 0.25, 0.25]]))[0], table[0] / 2 + table[2] / 4, rtol=1e-6)
    start = nn.initializers.normal(1.0)
    ours = ClassEmbed(3, 5, start).init(jax.random.key(0), one_hot(jnp.arange(2), 3))
    flax = nn.Embed(3, 5, embedding_init=start).init(jax.random.key(0), jnp.arange(2))
    jax.tree.map(np.testing.assert_array_equal, ours, flax)  # and so old checkpoints fit, and runs start alike


def test_norms_are_values() -> None:
    for norm in (BatchNorm(), NoNorm(), SpectralNorm()):
        assert isinstance(norm, Norm)
        net = DcganDiscriminator(widths=(4,), norm=norm)
        assert codec.decode(codec.encode(net)) == net


# Spectral normalisation.


class Single(nn.Module):
    layer: str

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        start = nn.initializers.normal(3.0)
        layer = {
            "conv": lambda: nn.Conv(5, (3, 3), kernel_init=start, use_bias=False, name="layer"),
            "dense": lambda: nn.Dense(4, kernel_init=start, use_bias=False, name="layer"),
            "embed": lambda: ClassEmbed(6, 4, start, name="layer"),
        }[self.layer]()
        return spectral(layer, x, train=train)


SINGLE = {
    "conv": jnp.asarray(array("x", (2, 6, 6, 4), 1.0)),
    "dense": jnp.asarray(array("x", (2, 7), 1.0)),
    "embed": one_hot(jnp.arange(6), 6),
}


def matrix(variables: Any) -> np.ndarray:
    (weight,) = jax.tree.leaves(variables["params"])
    return np.asarray(weight, np.float64).reshape(-1, weight.shape[-1]).T  # outputs × the rest, as in the paper


@pytest.mark.parametrize("layer", SINGLE)
def test_sigma_becomes_the_largest_singular_value(layer: str) -> None:
    net, x = Single(layer), SINGLE[layer]
    variables = jit(lambda: net.init(jax.random.key(2, impl="rbg"), x, True))()
    w, u = matrix(variables), np.asarray(variables["spectral"]["layer_spectral"]["u"])
    assert w.std() == pytest.approx(3.0, rel=0.3)  # what is stored is what the initialiser drew
    np.testing.assert_allclose(np.linalg.norm(u), 1.0, rtol=1e-5)

    train = jit(lambda v: net.apply(v, x, True, mutable=True))
    _, after = train(variables)
    v = u @ w / np.linalg.norm(u @ w)
    np.testing.assert_allclose(after["spectral"]["layer_spectral"]["u"], w @ v / np.linalg.norm(w @ v), atol=1e-5)

    last = functools.reduce(lambda v, _: train(v)[1], range(200), variables)
    jax.tree.map(np.testing.assert_array_equal, last["params"], variables["params"])
    y, same = jit(lambda v: net.apply(v, x, False, mutable=True))(last)
    jax.tree.map(np.testing.assert_array_equal, same, last)
    (weight,) = jax.tree.leaves(variables["params"])
    plain = {
        "conv": nn.Conv(5, (3, 3), use_bias=False),
        "dense": nn.Dense(4, use_bias=False),
        "embed": ClassEmbed(6, 4),
    }
    name = "embedding" if layer == "embed" else "kernel"
    divided = {"params": {name: weight / np.linalg.svd(w, compute_uv=False)[0]}}
    np.testing.assert_allclose(y, plain[layer].apply(divided, x), rtol=1e-4, atol=1e-5)


def test_the_gradient_goes_through_sigma_as_in_the_paper() -> None:
    w, x, c = (array(name, shape, 1.0) for name, shape in (("w", (7, 4)), ("x", (2, 7)), ("c", (2, 4))))
    u0 = array("u", (4,), 1.0)
    sigma, u = power_iteration(jnp.asarray(w), jnp.asarray(u0))
    v = w @ u0 / np.linalg.norm(w @ u0)
    variables = {
        "params": {"layer": {"kernel": jnp.asarray(w)}},
        "spectral": {"layer_spectral": {"u": jnp.asarray(u0)}},
    }
    net = Single("dense")

    def loss(params: Any) -> Any:
        y, _ = net.apply({**variables, "params": params}, jnp.asarray(x), True, mutable=["spectral"])
        return (y * c).sum()

    # Equation 12: (E[δ h'] - λ u₁ v₁') / σ with λ = E[δ' W̄ h]. It holds for any u and v with σ = u' W v.
    plain = x.T @ c
    expected = (plain - (c * (x @ w / sigma)).sum() * np.outer(v, u)) / sigma
    np.testing.assert_allclose(jax.grad(loss)(variables["params"])["layer"]["kernel"], expected, rtol=1e-4, atol=1e-5)
