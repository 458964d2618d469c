"""Text encoders: transformers over token ids, to be trained with a net or with CLIP's weights (arXiv:2103.00020)."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Literal, Protocol, TypedDict, runtime_checkable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgen.errors import UserError
from jaxgen.nn.attention import attend
from jaxgen.nn.interfaces import Encoded
from jaxgen.nn.transformer import Dense, DenseGeneral, check_heads
from jaxgen.parallel.rules import ByPath, Replicated, Split
from jaxgen.typing import Precision

Activation = Literal["gelu", "quick_gelu"]

ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "gelu": functools.partial(nn.gelu, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),  # arXiv:1606.08415, section 2
}


@runtime_checkable
class Pooling(Protocol):
    """How a text's vectors become one."""

    def __call__(
        self, text: Float[Array, "b n c"], tokens: Int[Array, "b n"], seen: Bool[Array, "b n"]
    ) -> Float[Array, "b c"]:
        """Return f32[b c]; `seen` is true for tokens that are no padding."""
        ...


@dataclasses.dataclass(frozen=True)
class AtToken:
    """The vector where an id, such as the end's, stands first; of a text without it, the first vector."""

    id: int = 2

    def __call__(
        self, text: Float[Array, "b n c"], tokens: Int[Array, "b n"], seen: Bool[Array, "b n"]
    ) -> Float[Array, "b c"]:
        return _at(text, jnp.argmax(tokens == self.id, axis=1))


@dataclasses.dataclass(frozen=True)
class AtHighestId:
    """The vector of the highest id, which in CLIP's vocabulary ends a text: OpenAI's code finds the end so."""

    def __call__(
        self, text: Float[Array, "b n c"], tokens: Int[Array, "b n"], seen: Bool[Array, "b n"]
    ) -> Float[Array, "b c"]:
        return _at(text, jnp.argmax(tokens, axis=1))


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean over the tokens that are no padding."""

    def __call__(
        self, text: Float[Array, "b n c"], tokens: Int[Array, "b n"], seen: Bool[Array, "b n"]
    ) -> Float[Array, "b c"]:
        weights = seen.astype(text.dtype)[:, :, None]
        return (text * weights).sum(1) / jnp.maximum(weights.sum(1), 1)


def _at(text: Float[Array, "b n c"], place: Int[Array, " b"]) -> Float[Array, "b c"]:
    return jnp.take_along_axis(text, place[:, None, None], axis=1)[:, 0]


class Size(TypedDict):
    """What published encoders are made of: `TextTransformer(**CLIP_L)`."""

    vocabulary: int
    length: int
    width: int
    depth: int
    heads: int
    activation: Activation
    causal: bool
    padding: int | None
    pooling: Pooling


CLIP_L = Size(
    vocabulary=49_408,
    length=77,
    width=768,
    depth=12,
    heads=12,
    activation="quick_gelu",
    causal=True,
    padding=None,
    pooling=AtHighestId(),
)
"""CLIP ViT-L/14's text encoder, 123 million parameters: as it is, Stable Diffusion 1's. Stable Diffusion 3's is
`TextTransformer(**CLIP_L, projection=768, skipped=1, normalized=False)`."""
OPENCLIP_BIGG = Size(
    vocabulary=49_408,
    length=77,
    width=1280,
    depth=32,
    heads=20,
    activation="gelu",
    causal=True,
    padding=None,
    pooling=AtHighestId(),
)
"""OpenCLIP ViT-bigG/14's, 695 million: Stable Diffusion XL's and 3's with `projection=1280, skipped=1,
normalized=False`."""

TEXT_TRANSFORMER = ByPath(
    (
        (r"/blocks/qkv/(kernel|bias)$", Split(-2)),  # kernel [depth width 3 heads c]
        (r"/blocks/(out|down)/kernel$", Split(-2)),
        (r"/blocks/up/(kernel|bias)$", Split(-1)),
        ("", Replicated()),
    )
)
"""Tensor parallelism: devices share heads and the MLPs' hidden channels, so that one sum over the devices ends each
branch (Megatron-LM, arXiv:1909.08053, section 3)."""

AXES = (
    (r"\bblocks/qkv/kernel$", "ninoo"),
    (r"\bblocks/\w+/kernel$", "nio"),
)
"""Which axes of the blocks' kernels are inputs and outputs, for `Muon`."""


class Block(nn.Module):
    """Attention among tokens, then an MLP on each: residual branches, normalised first."""

    heads: int
    activation: Activation
    epsilon: float
    dtype: Precision

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], mask: Bool[Array, "b _ n"] | None
    ) -> tuple[Float[Array, "b n c"], None]:
        """Return the tokens, and None for what a scan would stack."""
        width = x.shape[-1]
        norm = functools.partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)
        # Heads have an axis of their own, over which devices can share them.
        qkv = DenseGeneral((3, self.heads, width // self.heads), dtype=self.dtype, name="qkv")(norm(name="norm1")(x))
        q, k, v = (qkv[:, :, i] for i in range(3))
        x = x + Dense(width, dtype=self.dtype, name="out")(attend(q, k, v, mask))
        y = Dense(4 * width, dtype=self.dtype, name="up")(norm(name="norm2")(x))
        return x + Dense(width, dtype=self.dtype, name="down")(ACTIVATIONS[self.activation](y)), None


class TextTransformer(nn.Module):
    """Map token ids i32[b n], n at most `length`, to a vector for each and one for the whole text, in float32.

    An id beyond the vocabulary makes its text NaN. Raises UserError for texts that are too long, and where the heads do
    not divide the width.
    """

    vocabulary: int
    """Number of token ids."""
    length: int = 40
    """The most tokens of a text."""
    width: int = 128
    """Channels of a token."""
    depth: int = 2
    """Blocks."""
    heads: int = 4
    activation: Activation = "gelu"
    """Between the two layers of an MLP: GELU, or x·sigmoid(1.702·x)."""
    causal: bool = False
    """Whether a token attends to itself and those before it only."""
    padding: int | None = 0
    """The id that is padding: no token attends to it, and the mask says so; None: all ids count, and there is no
    mask."""
    pooling: Pooling = Mean()
    """How the last block's vectors, normalised, become one."""
    projection: int = 0
    """Channels that a linear map, without bias, gives the one vector; 0: no map."""
    skipped: int = 0
    """How many of the last blocks the tokens' vectors do not pass; the one vector passes all."""
    normalized: bool = True
    """Whether the tokens' vectors pass the last normalisation."""
    epsilon: float = 1e-5
    """Added to variances."""
    unroll: int = 1
    """Blocks that one turn of the scan over the depth computes: more compile longer and copy less."""
    dtype: Precision = "float32"
    """Type that the blocks compute in; parameters and outputs are float32."""

    @nn.compact
    def __call__(self, tokens: Int[Array, "b n"], *, train: bool) -> Encoded:
        del train  # nothing here differs
        self._check(tokens.shape[1])
        seen = jnp.ones(tokens.shape, bool) if self.padding is None else tokens != self.padding
        x = nn.Embed(self.vocabulary, self.width, embedding_init=nn.initializers.normal(0.02), name="tokens")(tokens)
        places = nn.Embed(self.length, self.width, embedding_init=nn.initializers.normal(0.01), name="positions")
        x = x + places(jnp.arange(tokens.shape[1]))[None]
        last, kept = self._blocks(x.astype(self.dtype), self._mask(seen))

        norm = nn.LayerNorm(self.epsilon, name="norm")  # f32
        last, kept = last.astype(jnp.float32), kept.astype(jnp.float32)
        normed = norm(last)
        pooled = self.pooling(normed, tokens, seen)
        if self.projection:
            pooled = Dense(self.projection, use_bias=False, name="projection")(pooled)
        text = kept if not self.normalized else norm(kept) if self.skipped else normed
        return Encoded(text=text, pooled=pooled, mask=None if self.padding is None else seen)

    def _mask(self, seen: Bool[Array, "b n"]) -> Bool[Array, "b _ n"] | None:
        b, n = seen.shape
        mask = None if self.padding is None else seen[:, None]
        if not self.causal:
            return mask
        before = jnp.broadcast_to(jnp.tril(jnp.ones((n, n), bool)), (b, n, n))
        return before if mask is None else before & mask

    def _blocks(
        self, x: Float[Array, "b n c"], mask: Bool[Array, "b _ n"] | None
    ) -> tuple[Float[Array, "b n c"], Float[Array, "b n c"]]:
        """Return what the last block makes of the tokens, and what the last that is not skipped does."""

        def one(block: Block, streams: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
            x, kept = streams
            x, _ = block(x, mask)
            return (x, jnp.where(i + self.skipped < self.depth, x, kept)), None

        # One block, compiled once: its parameters have the depth as their first axis.
        scan = functools.partial(
            nn.scan,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.depth,
            unroll=self.unroll,
        )
        block = Block(self.heads, self.activation, self.epsilon, self.dtype, name="blocks")
        if self.skipped:
            streams, _ = scan(one)(block, (x, x), jnp.arange(self.depth))
            return streams
        x, _ = scan(lambda block, x, _: block(x, mask))(block, x, None)
        return x, x

    def _check(self, length: int) -> None:
        check_heads("text_transformer", self.width, self.heads)
        if length > self.length:
            raise UserError(
                f"text_transformer: texts have {length} tokens, and the encoder takes {self.length}; raise its "
                "`length`, or lower the tokenizer's"
            )
        if not 0 <= self.skipped < self.depth:
            raise UserError(f"text_transformer: skipped={self.skipped} leaves none of {self.depth} blocks; lower it")
