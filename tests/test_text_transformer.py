"""TextTransformer: parity with CLIP's encoders, published names, and what holds of texts that are filled up."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from golden import unet_state
from golden.clip_text_state import END, LENGTH, SETUPS, TOKENS, VOCABULARY, Setup, as_openai
from golden.weights import array
from safetensors.numpy import save_file

from jaxgen import tree
from jaxgen.config import codec
from jaxgen.errors import UserError
from jaxgen.models.text_transformer import (
    AXES,
    CLIP_L,
    OPENCLIP_BIGG,
    TEXT_TRANSFORMER,
    AtHighestId,
    AtToken,
    Mean,
    TextTransformer,
)
from jaxgen.nn.interfaces import Encoded, TextEncoder, require
from jaxgen.optim.muon import Muon
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import shardings
from jaxgen.weights.clip_text import ClipText

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "clip_text.npz")
SMALL = TextTransformer(vocabulary=VOCABULARY, length=8, width=16, depth=2, heads=2, pooling=AtToken(2))
TEXTS = jnp.array([[1, 5, 6, 2, 0, 0], [1, 7, 2, 0, 0, 0], [1, 8, 9, 10, 11, 2]])

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def shapes(net: TextTransformer, tokens: Any = TEXTS) -> Any:
    return jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.asarray(tokens), train=False))


def filled(net: TextTransformer) -> Any:
    """Make variables of order one."""

    def leaf(path: str, like: Any) -> np.ndarray:
        if path.endswith(("scale", "bias")):
            return path.endswith("scale") + array(path, (1, *like.shape), 0.1)[0]
        return array(path, like.shape[::-1]).T

    return tree.map_with_path(leaf, shapes(net))


@functools.cache
def compiled(net: TextTransformer) -> Any:
    return jit(lambda v, t: net.apply(v, t, train=False))


def encode(net: TextTransformer, variables: Any, tokens: Any = TEXTS) -> Encoded:
    return compiled(net)(variables, jnp.asarray(tokens))


def net_of(setup: Setup, **fields: Any) -> TextTransformer:
    return TextTransformer(
        vocabulary=VOCABULARY,
        length=LENGTH,
        width=setup.width,
        depth=setup.depth,
        heads=setup.heads,
        activation=setup.activation,
        causal=True,
        padding=None,
        pooling=AtHighestId() if setup.end == 2 else AtToken(setup.end),
        **fields,
    )


def stored(case: str) -> dict[str, np.ndarray]:
    """The reference's state_dict."""
    entries = [entry.split(" ") for entry in GOLDEN[f"{case}_names"]]
    return {name: unet_state.song(name, tuple(int(n) for n in shape.split(","))) for name, shape in entries}


def bare(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("text_model."): value for name, value in state.items()}


def whole(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A whole CLIP, as OpenAI's files have it, deep in a file with another encoder."""
    state = as_openai(state) | {"visual.class_embedding": np.zeros(3, np.float32), "logit_scale": np.zeros(1)}
    other = {"other.text_model.embeddings.token_embedding.weight": np.zeros((2, 2), np.float32)}
    return {f"clip.{name}": value for name, value in state.items()} | other


FILES = {
    "text_model": (lambda state: state | {"text_model.embeddings.position_ids": np.arange(LENGTH)[None]}, ""),
    "bare": (bare, ""),
    "openai": (as_openai, ""),
    "whole": (whole, "clip."),
}


@pytest.mark.parametrize("case", SETUPS)
def test_equals_transformers_with_the_weights_of_every_kind_of_file(case: str, tmp_path: Any) -> None:
    net, file, found = net_of(SETUPS[case], projection=12), tmp_path / "text.safetensors", {}
    for kind, (made, prefix) in FILES.items():
        save_file({k: np.ascontiguousarray(v) for k, v in made(stored(case)).items()}, file)
        found[kind] = ClipText(str(file), prefix).read(shapes(net, TOKENS))
    for kind, variables in found.items():
        assert jax.tree.map(np.shape, variables) == jax.tree.map(np.shape, shapes(net, TOKENS))
        for (path, a), (_, b) in zip(tree.leaves(variables), tree.leaves(found["bare"]), strict=True):
            np.testing.assert_array_equal(a, b, err_msg=f"{kind} {path}")
    variables = found["bare"]
    made = encode(net, variables, TOKENS)
    np.testing.assert_allclose(made.text, GOLDEN[f"{case}_last"], atol=2e-5)
    np.testing.assert_allclose(made.pooled, GOLDEN[f"{case}_projected"], atol=2e-5)
    assert made.mask is None

    before = encode(net.clone(skipped=1, normalized=False), variables, TOKENS)
    np.testing.assert_allclose(before.text, GOLDEN[f"{case}_penultimate"], atol=2e-5)
    np.testing.assert_allclose(before.pooled, GOLDEN[f"{case}_projected"], atol=2e-5)
    assert np.abs(encode(net.clone(skipped=1), variables, TOKENS).text - before.text).max() > 0.1

    alone = net_of(SETUPS[case])
    del variables["params"]["projection"]
    assert shapes(alone, TOKENS)["params"].keys() == ClipText(str(file), "clip.").read(shapes(alone))["params"].keys()
    np.testing.assert_allclose(encode(alone, variables, TOKENS).pooled, GOLDEN[f"{case}_pooled"], atol=2e-5)


def test_files_of_other_nets_and_sizes_are_refused(tmp_path: Any) -> None:
    file, like = tmp_path / "text.safetensors", shapes(net_of(SETUPS["openai"], projection=12))
    state = stored("openai")
    lost = {name: value for name, value in state.items() if name != "text_projection.weight"}
    more = {f"text_model.encoder.layers.3.mlp.fc1.{kind}": np.zeros(2, np.float32) for kind in ("bias", "weight")}
    short = state | {"text_model.embeddings.position_embedding.weight": np.zeros((5, 16), np.float32)}
    for content, cause in (
        (lost, "has no text_projection.weight, which is the net's params/projection/kernel"),
        (state | more, "has encoder.layers.3.mlp.fc1.bias, of no use to the net, and 1 more"),
        (short, r"params/positions/embedding is \[5, 16\], the net wants \[9, 16\]"),
        ({"conv.weight": np.zeros(2, np.float32)}, "holds no text encoder of CLIP"),
        (state | whole(state), "has several text encoders, clip. and other.text_model. and text_model.; choose one"),
    ):
        save_file({k: np.ascontiguousarray(v) for k, v in content.items()}, file)
        with pytest.raises(UserError, match=cause) as caught:
            ClipText(str(file)).read(like)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "projection", "published"), [(CLIP_L, 0, 123_060_480), (OPENCLIP_BIGG, 1280, 694_659_840)]
)
def test_published_sizes_have_their_number_of_parameters(size: Any, projection: int, published: int) -> None:
    assert (
        tree.count(shapes(TextTransformer(**size, projection=projection), jnp.zeros((1, 77), jnp.int32))) == published
    )


def test_a_pooling_finds_its_token() -> None:
    text = jnp.arange(9.0).reshape(1, 9, 1).repeat(3, axis=0)
    tokens = jnp.asarray(TOKENS)
    assert AtToken(END)(text, tokens, tokens > 0)[:, 0].tolist() == [3, 2, 8]
    assert AtHighestId()(text, tokens, tokens > 0)[:, 0].tolist() == [3, 2, 8]
    assert Mean()(text, tokens, tokens < END)[:, 0].tolist() == [1.0, 34 / 8, 3.5]
    assert Mean()(text, tokens, tokens < 0)[:, 0].tolist() == [0, 0, 0]  # nothing but padding


@pytest.mark.parametrize("pooling", [AtToken(2), Mean()], ids=str)
def test_padding_has_no_effect_where_it_is_masked(pooling: Any) -> None:
    net = SMALL.clone(pooling=pooling)
    variables = filled(net)
    made, longer = encode(net, variables), encode(net, variables, jnp.pad(TEXTS, ((0, 0), (0, 2))))
    assert made.mask.tolist() == (TEXTS > 0).tolist()
    np.testing.assert_allclose(longer.pooled, made.pooled, atol=1e-5)
    seen = np.asarray(made.mask)
    np.testing.assert_allclose(longer.text[:, :6][seen], made.text[seen], atol=1e-5)


def test_padding_has_an_effect_where_it_is_not_masked() -> None:
    net = SMALL.clone(padding=None)
    variables = filled(net)
    made, longer = encode(net, variables), encode(net, variables, jnp.pad(TEXTS, ((0, 0), (0, 2))))
    assert made.mask is None
    assert np.abs(longer.pooled - made.pooled).max() > 1e-2


def test_a_causal_encoder_sees_only_what_came_before() -> None:
    other = TEXTS.at[:, 3].set(12)
    for causal in (True, False):
        net = SMALL.clone(causal=causal, padding=None)
        variables = filled(net)
        changed = np.abs(encode(net, variables, other).text - encode(net, variables).text).max((0, 2))
        assert (changed[3:] > 1e-3).all()
        assert (changed[:3] < 1e-5).all() == causal


def test_permuting_the_texts_permutes_the_outputs() -> None:
    variables = filled(SMALL)
    made, turned = encode(SMALL, variables), encode(SMALL, variables, TEXTS[::-1])
    np.testing.assert_allclose(turned.text[::-1], made.text, atol=1e-5)
    np.testing.assert_allclose(turned.pooled[::-1], made.pooled, atol=1e-5)


@pytest.mark.parametrize("fields", [{}, {"projection": 4, "skipped": 1, "unroll": 2}], ids=str)
def test_every_parameter_gets_a_gradient(fields: Any) -> None:
    net = SMALL.clone(**fields)

    def loss(v: Any) -> jax.Array:
        made = net.apply(v, TEXTS, train=True)
        return jnp.square(made.text[:, :3]).mean() + jnp.sin(3 * made.text).mean() + jnp.sin(made.pooled).mean()

    for path, g in tree.leaves(jit(jax.grad(loss))(filled(net))):
        g = np.abs(g).reshape(len(g) if "blocks" in path else 1, -1).max(1)
        assert (g > 1e-7).all(), path


def test_bfloat16_is_near_and_an_unknown_id_shows() -> None:
    variables = filled(SMALL)
    full, half = encode(SMALL, variables), encode(SMALL.clone(dtype="bfloat16"), variables)
    assert half.text.dtype == half.pooled.dtype == jnp.float32
    assert 0 < np.abs(half.text - full.text).max() < 0.1 * np.abs(full.text).max()
    beyond = encode(SMALL, variables, TEXTS.at[0, 1].set(VOCABULARY))
    assert np.isnan(beyond.pooled[0]).all()
    assert not np.isnan(beyond.pooled[1:]).any()


@pytest.mark.parametrize(
    ("fields", "tokens", "cause"),
    [
        ({"heads": 3}, TEXTS, "3 heads do not share a width of 16 evenly"),
        ({"skipped": 2}, TEXTS, "skipped=2 leaves none of 2 blocks"),
        ({}, jnp.ones((1, 9), jnp.int32), "texts have 9 tokens, and the encoder takes 8"),
    ],
)
def test_mistakes_are_named(fields: Any, tokens: Any, cause: str) -> None:
    with pytest.raises(UserError, match=cause) as caught:
        shapes(SMALL.clone(**fields), tokens)
    assert "\n" not in str(caught.value)


def test_it_is_a_text_encoder_that_is_kept_as_json() -> None:
    net = TextTransformer(**CLIP_L, projection=768, skipped=1, normalized=False)
    require(net, TextEncoder, "text")
    assert codec.decode(codec.encode(net)) == net


def test_the_rule_and_muon_know_its_layers() -> None:
    params = shapes(SMALL)["params"]
    Muon(axes=AXES).direction(optax.identity(), 1).init(jax.tree.map(jnp.asarray, filled(SMALL)["params"]))
    mesh = MeshShape(replica=4, tensor=2).build()
    placed = tree.leaves(shardings(TEXT_TRANSFORMER, {"params": params}, mesh))
    split = {path.rsplit("/", 2)[-2] for path, leaf in placed if not leaf.is_fully_replicated}
    assert split == {"qkv", "out", "up", "down"}
