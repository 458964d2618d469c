"""TextUNet: parity with diffusers', published names, and what holds of a net that attends to texts."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import unet_state
from golden.text_unet_state import MASK, NOISE, SETUPS, TEXT, TOKENS, Setup, text
from golden.weights import array, image
from safetensors.numpy import save_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.text_unet import AXES, SD1, TEXT_UNET, TextUNet
from jaxgen.nn.interfaces import Denoiser, require
from jaxgen.optim.muon import Muon
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import shardings
from jaxgen.weights.sd_unet import SINGLE, SdUnet

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "text_unet.npz")
SMALL = TextUNet(model_channels=8, multipliers=(1, 2), attention=(1,), heads=2, groups=4)
LEAST = SMALL.clone(multipliers=(1,), attention=(0,))  # compiles in half the time
X = jnp.asarray(image(4, 4, 3))
SIGMA = jnp.asarray(NOISE)


def asked(mask: bool = False, width: int = TEXT) -> dict[str, jax.Array]:
    condition = {"text": jnp.asarray(text()), "pooled": jnp.asarray(array("pooled", (2, width), 1.0))}
    return condition | ({"text_mask": jnp.asarray(MASK)} if mask else {})


def shapes(net: TextUNet, x: Any = X, condition: Any = None) -> Any:
    condition = asked() if condition is None else condition
    return jax.eval_shape(lambda: net.init(jax.random.key(0), x, SIGMA, condition, train=False))


def filled(net: TextUNet) -> Any:
    """Variables of order one: at the start whole branches are silent."""

    def leaf(path: str, like: Any) -> jax.Array:
        if len(like.shape) < 2:
            return (0.0 if path.endswith("bias") else 1.0) + jnp.asarray(array(path, (1, *like.shape), 0.1)[0])
        return jnp.asarray(array(path, like.shape[::-1]).T)

    return tree.map_with_path(leaf, shapes(net))


def apply(net: TextUNet, variables: Any, condition: Any, x: Any = X, noise: Any = SIGMA) -> jax.Array:
    return jax.jit(lambda v, x, noise, c: net.apply(v, x, noise, c, train=False))(variables, x, noise, condition)


def net_of(setup: Setup) -> TextUNet:
    return TextUNet(
        model_channels=setup.model_channels,
        multipliers=setup.multipliers,
        blocks=setup.blocks,
        attention=setup.attention,
        heads=setup.heads,
        depth=setup.depth,
        groups=setup.groups,
    )


def stored(case: str, *, single: bool) -> dict[str, np.ndarray]:
    """The reference's state_dict, by the names of one of the two kinds of file."""
    entries = [entry.split(" ") for entry in GOLDEN[f"{case}_names"]]
    values = [unet_state.song(name, tuple(int(n) for n in shape.split(","))) for name, shape in entries]
    called = [SINGLE + name for name in GOLDEN[f"{case}_single"]] if single else [name for name, _ in entries]
    return dict(zip(called, values, strict=True))


@pytest.mark.parametrize(
    ("case", "single"), [("sd1", False), pytest.param("sd1", True, marks=pytest.mark.slow), ("linear", False)]
)
def test_equals_diffusers_with_the_weights_of_either_kind_of_file(case: str, single: bool, tmp_path: Any) -> None:
    setup, file = SETUPS[case], tmp_path / "unet.safetensors"
    other = {"first_stage_model.encoder.conv_in.weight": np.zeros(2, np.float32)} if single else {}
    save_file(stored(case, single=single) | other, file)
    net, x = net_of(setup), jnp.asarray(image(setup.height, setup.width))
    like = shapes(net, x)
    variables = SdUnet(str(file)).read(like)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), variables) == jax.tree.map(lambda a: (a.shape, a.dtype), like)
    found = apply(net, variables, asked(setup.masked), x)
    assert np.abs(found - GOLDEN[case]).max() < 2e-5 * np.abs(GOLDEN[case]).max()


def test_files_of_other_nets_and_sizes_are_refused(tmp_path: Any) -> None:
    file, net = tmp_path / "unet.safetensors", net_of(SETUPS["linear"])
    table, like = stored("linear", single=False), shapes(net)
    lost = {name: value for name, value in table.items() if name != "conv_in.weight"}
    wide = table | {"conv_out.weight": np.zeros((4, 16, 3, 3), np.float32)}
    for content, cause in (
        (lost, "has no conv_in.weight, which is the net's params/in/kernel"),
        (table | {"extra.bias": np.zeros(2, np.float32)}, "has extra.bias, of no use to the net"),
        (wide, r"params/out/kernel is \[3, 3, 16, 4\], the net wants \[3, 3, 16, 3\]"),
    ):
        save_file(content, file)
        with pytest.raises(UserError, match=cause) as caught:
            SdUnet(str(file)).read(like)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there are no weights"):
        SdUnet(str(tmp_path / "none")).read(like)


def test_the_published_size_has_its_number_of_parameters() -> None:
    condition = {"text": jnp.zeros((1, 77, 768)), "pooled": jnp.zeros((1, 768))}
    net = TextUNet(**SD1)
    require(net, Denoiser, "net")
    found = jax.eval_shape(
        lambda: net.init(jax.random.key(0), jnp.zeros((1, 64, 64, 4)), jnp.zeros(1), condition, train=False)
    )
    assert sum(leaf.size for _, leaf in tree.leaves(found)) == 859_520_964


def test_the_output_is_0_at_first() -> None:
    variables = jax.jit(lambda: LEAST.init(jax.random.key(0), X, SIGMA, asked(), train=False))()
    np.testing.assert_array_equal(apply(LEAST, variables, asked()), 0.0)


def test_permuting_the_captions_permutes_the_outputs() -> None:
    variables, condition = filled(LEAST), asked(mask=True)
    same = X[:1].repeat(2, axis=0), SIGMA[:1].repeat(2)
    found = apply(LEAST, variables, condition, *same)
    turned = apply(LEAST, variables, {name: value[::-1] for name, value in condition.items()}, *same)
    np.testing.assert_allclose(turned[::-1], found, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_padding_has_no_effect_where_it_is_masked_and_one_where_it_is_not() -> None:
    variables, condition = filled(LEAST), asked(mask=True)
    other = condition | {"text": jnp.where(condition["text_mask"][:, :, None], condition["text"], 7.0)}
    found = apply(LEAST, variables, condition)
    np.testing.assert_allclose(apply(LEAST, variables, other), found, atol=1e-6)
    short = {name: value[:1, :3] if value.ndim > 1 and name != "pooled" else value[:1] for name, value in other.items()}
    np.testing.assert_allclose(apply(LEAST, variables, short, X[:1], SIGMA[:1]), found[:1], atol=1e-5)
    del condition["text_mask"], other["text_mask"]
    assert np.abs(apply(LEAST, variables, other) - apply(LEAST, variables, condition))[0].max() > 1e-2


def test_pooled_counts_where_a_field_says_so() -> None:
    condition = asked()
    other = condition | {"pooled": -condition["pooled"]}
    for net, differs in ((LEAST, False), (LEAST.clone(embed_pooled=True), True)):
        variables = filled(net)
        assert np.abs(apply(net, variables, condition) - apply(net, variables, other)).max() > 1e-3 if differs else True
        assert differs or np.array_equal(apply(net, variables, condition), apply(net, variables, other))


def gradient(net: TextUNet, variables: Any, condition: Any) -> Any:
    rngs = {"dropout": jax.random.key(1)}
    return jax.jit(jax.grad(lambda v: jnp.square(net.apply(v, X, SIGMA, condition, train=True, rngs=rngs)).sum()))(
        variables
    )


@pytest.mark.by_hand
def test_every_parameter_gets_a_gradient_also_when_blocks_are_recomputed() -> None:
    net, condition = SMALL.clone(embed_pooled=True, dropout=0.5), asked(mask=True)
    variables = filled(net)
    plain = gradient(net, variables, condition)
    assert [path for path, leaf in tree.leaves(plain) if not np.abs(leaf).max() > 0] == []
    again = gradient(net.clone(remat=True), variables, condition)
    for (path, a), (_, b) in zip(tree.leaves(plain), tree.leaves(again), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max(), err_msg=path)


def test_bfloat16_is_near() -> None:
    variables = filled(LEAST)
    full = apply(LEAST, variables, asked())
    half = apply(LEAST.clone(dtype="bfloat16"), variables, asked())
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


@pytest.mark.parametrize(
    ("fields", "x", "cause"),
    [
        ({"multipliers": ()}, X, "multipliers is empty"),
        ({"attention": (2,)}, X, "attention names level 2; the net has levels 0 to 1"),
        ({"heads": 3}, X, "3 heads do not share a width of 16 evenly"),
        ({"groups": 5}, X, "8 channels do not divide into 5 groups"),
        ({}, X[:, :3], "3×4 cannot be halved once"),
    ],
)
def test_mistakes_are_named(fields: Any, x: Any, cause: str) -> None:
    with pytest.raises(UserError, match=cause) as caught:
        shapes(SMALL.clone(**fields), x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda c: {"pooled": c["pooled"]}, "takes a text and got no 'text'; set objective.text"),
        (lambda c: {"text": c["text"]}, "takes a text and got no 'pooled'"),
        (lambda c: {"label": jnp.ones((2, 4))}, "takes a text and no condition named label"),
        (lambda c: c | {"text": c["pooled"]}, r"got 'text' of shape \(2, 24\); it takes vectors \[b n c\]"),
        (lambda c: c | {"text_mask": jnp.ones((2, 4), bool)}, r"'text_mask' of shape \(2, 4\); .* it is \(2, 5\)"),
    ],
)
def test_conditions_that_are_no_text_are_refused(change: Any, cause: str) -> None:
    with pytest.raises(UserError, match=cause) as caught:
        shapes(SMALL, condition=change(asked()))
    assert "\n" not in str(caught.value)


def test_the_rule_splits_what_ends_in_one_sum() -> None:
    assert TOKENS > 1
    params = shapes(SMALL)["params"]
    state = {"params": params, "opt": jax.eval_shape(optax.adam(1e-3).init, params)}
    mesh = MeshShape(replica=4, tensor=2).build()
    split = [path for path, leaf in tree.leaves(shardings(TEXT_UNET, state, mesh)) if not leaf.is_fully_replicated]
    layers = {path.rsplit("/", 2)[-2] for path in split if "params" in path}
    assert layers == {"qkv", "query", "kv", "out", "out_text", "up", "down", "conv0", "conv1", "shift", "norm1"}
    assert not [path for path in split if "norm1" in path and "layer" in path]
    assert not [path for path in split if path.endswith(("/params/out/kernel", "transformer/out/kernel"))]


@pytest.mark.by_hand
def test_tensor_parallelism_changes_nothing() -> None:
    variables, condition = filled(SMALL), asked(mask=True)
    mesh = MeshShape(replica=4, tensor=2).build()
    placed = jax.device_put(variables, shardings(TEXT_UNET, jax.eval_shape(lambda: variables), mesh))

    def loss(v: Any) -> jax.Array:
        return jnp.square(SMALL.apply(v, X, SIGMA, condition, train=False)).sum()

    one, two = (jax.jit(jax.value_and_grad(loss))(v) for v in (variables, placed))
    for (path, a), (_, b) in zip(tree.leaves(one), tree.leaves(two), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-4 * np.abs(a).max(), path


def test_muon_knows_its_layers():
    Muon(axes=AXES).direction(optax.identity(), 1).init(filled(SMALL)["params"])
