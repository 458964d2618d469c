"""MMDiT: parity with Stable Diffusion 3's, published names, and what holds of two streams that attend together."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import mmdit_state
from golden.mmdit_state import LARGEST, NOISE, POOLED, SETUPS, SIDE, TEXT, TOKENS, Setup
from golden.weights import array, image
from safetensors.numpy import save_file

from jaxgen import tree
from jaxgen.config import codec
from jaxgen.errors import UserError
from jaxgen.models.dit import DiT
from jaxgen.models.mmdit import AXES, LARGE, MEDIUM, MMDIT, MMDiT
from jaxgen.nn.interfaces import Denoiser, require
from jaxgen.nn.positions import CentredSinCos, SinCos
from jaxgen.nn.transformer import RmsNorm
from jaxgen.optim.muon import Muon
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import shardings
from jaxgen.weights.mmdit import SINGLE, Sd3Mmdit

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "mmdit.npz")
SMALL = MMDiT(width=16, depth=2, heads=2)
X = jnp.asarray(image(4, 4, 3))
SIGMA = jnp.asarray(NOISE)
MASK = jnp.array([[True, True, True, False, False], [True] * TOKENS])

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def asked(mask: Any = None) -> dict[str, jax.Array]:
    condition = {"text": jnp.asarray(mmdit_state.text()), "pooled": jnp.asarray(mmdit_state.pooled())}
    return condition if mask is None else condition | {"text_mask": mask}


def shapes(net: MMDiT, x: Any = X, condition: Any = None) -> Any:
    given = condition or asked()
    return jax.eval_shape(lambda: net.init(jax.random.key(0), x, jnp.zeros(len(x)), given, train=False))


def filled(net: MMDiT) -> Any:
    """Make variables of order one: fresh ones are full of zeros."""

    def leaf(path: str, like: Any) -> np.ndarray:
        if path.endswith(("scale", "bias")):
            return path.endswith("scale") + array(path, (1, *like.shape), 0.1)[0]
        return array(path, like.shape[::-1]).T

    return tree.map_with_path(leaf, shapes(net))


@functools.cache
def compiled(net: Any) -> Any:
    return jit(lambda v, x, noise, c: net.apply(v, x, noise, c, train=False))


def apply(net: Any, variables: Any, condition: Any, x: Any = X, noise: Any = SIGMA) -> jax.Array:
    return compiled(net)(variables, x, noise, condition)


def net_of(setup: Setup) -> MMDiT:
    return MMDiT(
        width=setup.heads * setup.head,
        depth=setup.depth,
        heads=setup.heads,
        patch=2,
        qk_norm=RmsNorm() if setup.qk_norm else None,
        position=CentredSinCos(largest=LARGEST, side=SIDE),
    )


def stored(case: str, *, single: bool) -> dict[str, np.ndarray]:
    """The reference's state_dict, by the names of one of the two kinds of file."""
    entries = [entry.split(" ") for entry in GOLDEN[f"{case}_single_names" if single else f"{case}_names"]]
    state = {name: mmdit_state.value(name, tuple(int(n) for n in shape.split(","))) for name, shape in entries}
    return state | {"pos_embed" if single else "pos_embed.pos_embed": np.zeros((1, LARGEST**2, 16), np.float32)}


@pytest.mark.parametrize("single", [False, True], ids=["diffusers", "single"])
@pytest.mark.parametrize("case", SETUPS)
def test_equals_diffusers_with_the_weights_of_either_kind_of_file(case: str, single: bool, tmp_path: Any) -> None:
    setup, file, state = SETUPS[case], tmp_path / "mmdit.safetensors", stored(case, single=single)
    if single and case == "normed":  # within the file of a whole model
        state = {SINGLE + name: value for name, value in state.items()} | {"text_encoders.x": np.zeros(2, np.float32)}
    save_file(state, file)
    net, x = net_of(setup), jnp.asarray(image(setup.height, setup.width))
    like = shapes(net, x)
    variables = Sd3Mmdit(str(file)).read(like)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), variables) == jax.tree.map(lambda a: (a.shape, a.dtype), like)
    golden = GOLDEN[f"{case}_single" if single else case]
    assert np.abs(apply(net, variables, asked(), x) - golden).max() < 2e-5 * np.abs(golden).max()


def test_files_of_other_nets_and_sizes_are_refused(tmp_path: Any) -> None:
    file, like = tmp_path / "mmdit.safetensors", shapes(net_of(SETUPS["normed"]))
    state = stored("normed", single=False)
    lost = {name: value for name, value in state.items() if name != "proj_out.bias"}
    more = {f"transformer_blocks.1.attn2.to_q.{kind}": np.zeros(2, np.float32) for kind in ("bias", "weight")}
    for content, cause in (
        (lost, "has no proj_out.bias, which is the net's params/out/bias"),
        (state | more, "has transformer_blocks.1.attn2.to_q.bias, of no use to the net, and 1 more"),
    ):
        save_file(content, file)
        with pytest.raises(UserError, match=cause) as caught:
            Sd3Mmdit(str(file)).read(like)
        assert "\n" not in str(caught.value)


def test_the_published_sizes_have_their_number_of_parameters() -> None:
    condition = {"text": jnp.zeros((1, 77, 2048)), "pooled": jnp.zeros((1, 2048))}
    x = jnp.zeros((1, 128, 128, 16))
    medium = MMDiT(**MEDIUM, patch=2, qk_norm=None, position=CentredSinCos(), text_width=4096)
    queries = 1536 * 1536 + 1536  # of the last block's text, which nothing reads
    assert tree.count(shapes(medium, x, condition)) == 2_028_328_000 - queries
    large = MMDiT(**LARGE, patch=2, position=CentredSinCos(), text_width=4096)
    assert round(tree.count(shapes(large, x, condition)) / 1e8) == 81


def test_the_output_is_0_at_first() -> None:
    variables = jit(lambda: SMALL.init(jax.random.key(0), X, SIGMA, asked(MASK), train=False))()
    np.testing.assert_array_equal(apply(SMALL, variables, asked()), 0.0)
    assert set(variables) == {"params"}


def test_zero_gates_are_the_identity() -> None:
    """With gates of 0 no block changes its tokens: what comes out is what the net without blocks gives."""
    variables = filled(SMALL)

    def closed(path: str, leaf: np.ndarray) -> np.ndarray:
        if "image_modulation" not in path:
            return leaf
        parts = np.split(leaf, 6, axis=-1)  # shift, scale, gate, twice
        return np.concatenate([part * (i % 3 < 2) for i, part in enumerate(parts)], axis=-1)

    shut = tree.map_with_path(closed, variables)
    other = jax.tree.map(lambda leaf: leaf, shut)
    for name in ("blocks", "last"):
        other["params"][name] = jax.tree.map(lambda leaf: 2 * leaf + 1, shut["params"][name])
        modulation = {"image_modulation": shut["params"][name]["image_modulation"]}
        other["params"][name] |= modulation
    np.testing.assert_allclose(apply(SMALL, other, asked()), apply(SMALL, shut, asked()), atol=1e-6)
    assert np.abs(apply(SMALL, variables, asked()) - apply(SMALL, shut, asked())).max() > 1e-2


def test_without_a_text_it_is_a_dit() -> None:
    variables = filled(SMALL)
    for layer in ("pooled1", "pooled2"):
        variables["params"][layer] = jax.tree.map(np.zeros_like, variables["params"][layer])
    none = {"text": jnp.zeros((2, 0, TEXT)), "pooled": jnp.zeros((2, POOLED))}
    found = apply(SMALL, variables, none)
    masked = asked(jnp.zeros_like(MASK))
    np.testing.assert_allclose(apply(SMALL, variables, masked), found, atol=1e-5)

    params = variables["params"]
    image_ = {k.removeprefix("image_"): v for k, v in params["blocks"].items() if k.startswith("image_")}
    last = {k.removeprefix("image_"): v for k, v in params["last"].items() if k.startswith("image_")}
    blocks = jax.tree.map(lambda a, b: np.concatenate([a, b[None]]), image_, last)
    kept = {name: params[name] for name in ("condition", "patch", "modulation", "out")}
    dit = DiT(width=16, depth=2, heads=2, patch=1, qk_norm=RmsNorm())
    np.testing.assert_allclose(apply(dit, {"params": kept | {"blocks": blocks}}, {}), found, atol=1e-5)


def test_permuting_the_captions_permutes_the_outputs() -> None:
    variables, condition = filled(SMALL), asked(MASK)
    same = X[:1].repeat(2, axis=0), SIGMA[:1].repeat(2)
    found = apply(SMALL, variables, condition, *same)
    turned = apply(SMALL, variables, {name: value[::-1] for name, value in condition.items()}, *same)
    np.testing.assert_allclose(turned[::-1], found, atol=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2


def test_padding_has_no_effect_where_it_is_masked_and_one_where_it_is_not() -> None:
    variables, condition = filled(SMALL), asked(MASK)
    other = condition | {"text": jnp.where(MASK[:, :, None], condition["text"], 7.0)}
    found = apply(SMALL, variables, condition)
    np.testing.assert_allclose(apply(SMALL, variables, other), found, atol=1e-6)
    short = {"text": other["text"][:1, :3], "pooled": other["pooled"][:1]}
    np.testing.assert_allclose(apply(SMALL, variables, short, X[:1], SIGMA[:1]), found[:1], atol=1e-5)
    del condition["text_mask"], other["text_mask"]
    assert np.abs(apply(SMALL, variables, other) - apply(SMALL, variables, condition))[0].max() > 1e-2


def test_text_pooled_text_and_noise_count() -> None:
    variables, condition = filled(SMALL), asked()
    found = apply(SMALL, variables, condition)
    for name in ("text", "pooled"):
        assert np.abs(apply(SMALL, variables, condition | {name: -condition[name]}) - found).max() > 1e-2
    assert np.abs(apply(SMALL, variables, condition, noise=SIGMA[::-1]) - found).max() > 1e-2


def test_narrow_texts_are_filled_up_with_zeros() -> None:
    net = SMALL.clone(text_width=TEXT)
    variables, condition = filled(net), asked()
    narrow = condition | {"text": condition["text"][:, :, :20]}
    wide = condition | {"text": condition["text"].at[:, :, 20:].set(0.0)}
    np.testing.assert_allclose(apply(net, variables, narrow), apply(net, variables, wide), atol=1e-6)
    with pytest.raises(UserError, match="the text has 24 channels, more than text_width=20"):
        shapes(net.clone(text_width=20))


def gradient(net: MMDiT, variables: Any) -> Any:
    return jit(jax.grad(lambda v: jnp.square(net.apply(v, X, SIGMA, asked(MASK), train=True)).mean()))(variables)


def test_every_parameter_gets_a_gradient() -> None:
    for path, g in tree.leaves(gradient(SMALL, filled(SMALL))):
        assert np.isfinite(g).all(), path
        assert np.abs(g).max() > 1e-6, path


@pytest.mark.slow
def test_recomputing_blocks_changes_no_gradient() -> None:
    net = SMALL.clone(depth=3)
    variables = filled(net)
    plain = gradient(net, variables)
    again = gradient(net.clone(remat=True, recomputed="cheap", unroll=2), variables)
    for (path, a), (_, b) in zip(tree.leaves(plain), tree.leaves(again), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-4 * np.abs(a).max(), err_msg=path)


def test_bfloat16_is_near() -> None:
    variables = filled(SMALL)
    full, half = apply(SMALL, variables, asked()), apply(SMALL.clone(dtype="bfloat16"), variables, asked())
    assert half.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.05 * np.abs(full).max()


def test_positions_share_their_centre() -> None:
    square = CentredSinCos(largest=6, side=3).table(6, 6, 16).reshape(6, 6, 16)
    np.testing.assert_array_equal(square.reshape(36, 16), SinCos(side=3).table(6, 6, 16))
    np.testing.assert_array_equal(CentredSinCos(6, 3).table(2, 5, 16).reshape(2, 5, 16), square[2:4, :5])
    with pytest.raises(UserError, match="7 × 2 patches are more than the 6 × 6 of CentredSinCos"):
        CentredSinCos(6, 3).table(7, 2, 16)


@pytest.mark.parametrize(
    ("fields", "x", "cause"),
    [
        ({"heads": 3}, X, "mmdit: 3 heads do not share a width of 16 evenly"),
        ({"patch": 2}, X[:, :3], "mmdit: 3 × 4 does not split into patches of 2; 4 × 4 does"),
    ],
)
def test_mistakes_are_named(fields: Any, x: Any, cause: str) -> None:
    with pytest.raises(UserError, match=cause) as caught:
        shapes(SMALL.clone(**fields), x)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("condition", "cause"),
    [
        ({"pooled": jnp.zeros((2, 3))}, "takes a text and got no 'text'; set objective.text"),
        ({"label": jnp.ones((2, 4))}, "takes a text and no condition named label"),
    ],
)
def test_conditions_that_are_no_text_are_refused(condition: Any, cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        shapes(SMALL, condition=condition)


def test_it_is_a_denoiser_that_is_kept_as_json() -> None:
    net = MMDiT(**MEDIUM, patch=2, qk_norm=None, position=CentredSinCos())
    require(net, Denoiser, "net")
    assert codec.decode(codec.encode(net)) == net


def test_the_rule_and_muon_know_its_layers() -> None:
    params = shapes(SMALL)["params"]
    Muon(axes=AXES).direction(optax.identity(), 1).init(jax.tree.map(jnp.asarray, filled(SMALL)["params"]))
    mesh = MeshShape(replica=4, tensor=2).build()
    placed = tree.leaves(shardings(MMDIT, {"params": params}, mesh))
    split = {tuple(path.split("/")[-3:-1]) for path, leaf in placed if not leaf.is_fully_replicated}
    both = {f"{stream}_{layer}" for stream in ("image", "text") for layer in ("qkv", "out", "up", "down")}
    last = {name for name in both if name.startswith("image")} | {"text_kv"}
    assert split == {("blocks", name) for name in both} | {("last", name) for name in last}


@pytest.mark.slow
def test_tensor_parallelism_changes_nothing() -> None:
    variables, condition = filled(SMALL), asked(MASK)
    mesh = MeshShape(replica=4, tensor=2).build()
    placed = jax.device_put(variables, shardings(MMDIT, shapes(SMALL), mesh))

    def loss(v: Any) -> jax.Array:
        return jnp.square(SMALL.apply(v, X, SIGMA, condition, train=False)).sum()

    one, two = (jax.jit(jax.value_and_grad(loss))(v) for v in (variables, placed))
    for (path, a), (_, b) in zip(tree.leaves(one), tree.leaves(two), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-4 * np.abs(a).max() + 1e-6, path
