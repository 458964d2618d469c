"""MMDiT, the denoiser of Stable Diffusion 3 (arXiv:2403.03206): image and text as two streams that attend together.

Each stream has weights of its own for all but attention. What both share, noise level and the text's one vector,
conditions every block by adaLN-Zero, as in DiT.
"""

from typing import ClassVar, Literal, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgen.errors import UserError
from jaxgen.nn.attention import attend
from jaxgen.nn.conditioning import ConditionEmbedding, text_of
from jaxgen.nn.positions import CentredSinCos, SinCos
from jaxgen.nn.transformer import (
    Dense,
    DenseGeneral,
    LayerNorm,
    Norm,
    Patches,
    RmsNorm,
    ZeroDense,
    check_heads,
    modulate,
)
from jaxgen.parallel.rules import ByPath, Replicated, Split
from jaxgen.typing import Condition, Precision

Tokens = Float[Array, "b _ c"]
Vector = Float[Array, "b c"]


class Size(TypedDict):
    """What the published sizes differ in: `MMDiT(**MEDIUM, …)`; the depth d gives width 64·d and d heads."""

    width: int
    depth: int
    heads: int


MEDIUM = Size(width=1536, depth=24, heads=24)
"""Stable Diffusion 3 medium, 2.0 billion parameters: with `patch=2, qk_norm=None, position=CentredSinCos(),
text_width=4096` and 16 channels."""
LARGE = Size(width=2432, depth=38, heads=38)
"""Stable Diffusion 3.5 large, 8.1 billion: as MEDIUM, with `qk_norm=RmsNorm()`."""

MMDIT = ByPath(
    (
        (r"/(blocks|last)/(image|text)_(qkv|kv)/(kernel|bias)$", Split(-2)),  # kernel [(depth) width 3 heads c]
        (r"/(blocks|last)/(image|text)_(out|down)/kernel$", Split(-2)),
        (r"/(blocks|last)/(image|text)_up/(kernel|bias)$", Split(-1)),
        ("", Replicated()),
    )
)
"""Tensor parallelism: devices share the heads of attention and the hidden channels of both streams' MLPs, so that one
sum over the devices ends each branch (Megatron-LM, arXiv:1909.08053, section 3)."""

AXES = (
    (r"\bblocks/\w+_qkv/kernel$", "ninoo"),
    (r"\bblocks/\w+/kernel$", "nio"),
    (r"\blast/\w+_(qkv|kv)/kernel$", "inoo"),
)
"""Which axes of the blocks' kernels are inputs and outputs, for `Muon`: queries, keys and values of each layer are
matrices of their own. For a depth of two or more."""


class Block(nn.Module):
    """Joint attention, then an MLP on each token: residual branches of two streams, normalised, modulated and gated."""

    heads: int
    ratio: float
    qk_norm: Norm | None
    last: bool
    """Whether the text ends here: it is attended to once more, and not changed."""
    dtype: Precision

    @nn.compact
    def __call__(
        self, streams: tuple[Tokens, Tokens], c: Vector, mask: Bool[Array, "b 1 n"] | None
    ) -> tuple[tuple[Tokens, Tokens], None]:
        """Return both streams, and None for what a scan would stack."""
        (x, text), n = streams, streams[0].shape[1]
        image = self._modulation("image", c, 6)
        words = self._modulation("text", c, 2 if self.last else 6)
        q, *kv = self._heads("image", x, image[:2], 3)
        others = self._heads("text", text, words[:2], 2 if self.last else 3)
        if not self.last:
            q = jnp.concatenate([q, others.pop(0)], axis=1)
        k, v = (jnp.concatenate(pair, axis=1) for pair in zip(kv, others, strict=True))
        y = attend(q, k, v, mask)
        x = self._branches("image", x, y[:, :n], image[2:])
        if not self.last:
            text = self._branches("text", text, y[:, n:], words[2:])
        return (x, text), None

    def _modulation(self, stream: str, c: Vector, parts: int) -> list[Vector]:
        # Gates start at 0, so that every block starts as the identity (adaLN-Zero).
        made = ZeroDense(parts * c.shape[-1], dtype=self.dtype, name=f"{stream}_modulation")(nn.silu(c))
        return jnp.split(made, parts, axis=-1)

    def _normed(self, stream: str, x: Tokens, shift: Vector, scale: Vector, name: str) -> Tokens:
        return modulate(LayerNorm()(x, dtype=self.dtype, name=f"{stream}_{name}"), shift, scale)

    def _heads(self, stream: str, x: Tokens, modulation: list[Vector], parts: int) -> list[Float[Array, "b _ n d"]]:
        """Return queries, keys and values; of two parts keys and values."""
        width = x.shape[-1]
        x = self._normed(stream, x, *modulation, name="norm1")
        # Heads have an axis of their own, over which devices can share them.
        shape = (parts, self.heads, width // self.heads)
        made = DenseGeneral(shape, dtype=self.dtype, name=f"{stream}_{'qkv'[-parts:]}")(x)
        *query, key, value = (made[:, :, i] for i in range(parts))
        if self.qk_norm is not None:
            query = [self.qk_norm(q, dtype=self.dtype, name=f"{stream}_query_norm") for q in query]
            key = self.qk_norm(key, dtype=self.dtype, name=f"{stream}_key_norm")
        return [*query, key, value]

    def _branches(self, stream: str, x: Tokens, attended: Tokens, modulation: list[Vector]) -> Tokens:
        gate1, shift, scale, gate2 = modulation
        width = x.shape[-1]
        x = x + gate1[:, None] * Dense(width, dtype=self.dtype, name=f"{stream}_out")(attended)
        y = self._normed(stream, x, shift, scale, name="norm2")
        y = Dense(int(width * self.ratio), dtype=self.dtype, name=f"{stream}_up")(y)
        y = Dense(width, dtype=self.dtype, name=f"{stream}_down")(nn.gelu(y, approximate=True))
        return x + gate2[:, None] * y


class MMDiT(nn.Module):
    """Map x f32[b h w c], a noise level f32[b] and a text to f32[b h w c], 0 at first.

    The condition holds "text" f32[b n t], a vector for each token, "pooled" f32[b d], and where some tokens are padding
    that must not be seen "text_mask" bool[b n]. Raises UserError unless the patch divides the image, the heads the
    width, and the condition is a text.
    """

    width: int = 192
    """Channels of a token, of images and texts alike."""
    depth: int = 6
    """Blocks; the last does not change the text."""
    heads: int = 6
    patch: int | tuple[int, int] = 1
    """Side of a patch in pixels, or its height and width."""
    ratio: float = 4.0
    """Hidden channels of the MLPs over the width."""
    qk_norm: Norm | None = RmsNorm()
    """Of queries and keys, head by head: it bounds the attention's logits."""
    position: SinCos | CentredSinCos | None = SinCos()
    """Added to each token of the image: where its patch lies."""
    text_width: int | None = None
    """Channels of a text's vectors, which narrower ones are filled up to with zeros; None: as they come."""
    remat: bool = False
    """Recompute each block in the backward pass rather than keep its activations."""
    recomputed: Literal["all", "cheap"] = "all"
    """What `remat` recomputes of a block: all of it, or all but its matrix products, which are kept."""
    unroll: int = 1
    """Blocks that one turn of the scan over the depth computes: more compile longer and copy less."""
    dtype: Precision = "float32"
    """Type that the blocks compute in; parameters, embeddings and the output are float32."""
    classes: ClassVar[int] = 0  # a text takes a label's place

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], noise: Float[Array, " b"], condition: Condition, *, train: bool
    ) -> Float[Array, "b h w c"]:
        del train  # nothing here differs: texts are dropped by the objective
        _, height, width, channels = x.shape
        patches = Patches.of("mmdit", height, width, self.patch)
        check_heads("mmdit", self.width, self.heads)
        text, pooled, mask = text_of(condition)

        c = ConditionEmbedding(self.width, name="condition")(noise, {}) + self._pooled(pooled)
        tokens = Dense(self.width, name="patch")(patches.cut(x))
        if self.position is not None:
            tokens = tokens + jnp.asarray(self.position.table(patches.rows, patches.columns, self.width))[None]
        words = Dense(self.width, name="text")(self._filled(text))
        streams = tokens.astype(self.dtype), words.astype(self.dtype)
        tokens, _ = self._blocks(streams, c, self._mask(mask, tokens.shape[1]))

        shift, scale = jnp.split(ZeroDense(2 * self.width, name="modulation")(nn.silu(c)), 2, axis=-1)
        tokens = modulate(LayerNorm()(tokens, dtype="float32", name="norm"), shift, scale)
        return patches.join(ZeroDense(patches.pixels * channels, name="out")(tokens))

    def _pooled(self, pooled: Float[Array, "b d"]) -> Vector:
        small = nn.initializers.normal(0.02)
        y = nn.silu(nn.Dense(self.width, kernel_init=small, name="pooled1")(pooled.astype(jnp.float32)))
        return nn.Dense(self.width, kernel_init=small, name="pooled2")(y)

    def _filled(self, text: Float[Array, "b n t"]) -> Float[Array, "b n _"]:
        missing = 0 if self.text_width is None else self.text_width - text.shape[2]
        if missing < 0:
            raise UserError(f"mmdit: the text has {text.shape[2]} channels, more than text_width={self.text_width}")
        return jnp.pad(text.astype(jnp.float32), ((0, 0), (0, 0), (0, missing)))

    def _mask(self, mask: Bool[Array, "b n"] | None, patches: int) -> Bool[Array, "b 1 _"] | None:
        """Return which tokens all of them may attend to: every patch, and of the text what its mask says."""
        if mask is None:
            return None
        return jnp.concatenate([jnp.ones((mask.shape[0], patches), bool), mask], axis=1)[:, None]

    def _blocks(
        self, streams: tuple[Tokens, Tokens], c: Vector, mask: Bool[Array, "b 1 n"] | None
    ) -> tuple[Tokens, Tokens]:
        policy = None if self.recomputed == "all" else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        block = nn.remat(Block, prevent_cse=False, policy=policy) if self.remat else Block
        fields = (self.heads, self.ratio, self.qk_norm)
        if self.depth > 1:
            # One block, compiled once: its parameters have the depth, less the last block, as their first axis.
            stack = nn.scan(
                block,
                variable_axes={"params": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, nn.broadcast),
                length=self.depth - 1,
                unroll=self.unroll,
            )
            streams, _ = stack(*fields, False, self.dtype, name="blocks")(streams, c, mask)
        streams, _ = block(*fields, True, self.dtype, name="last")(streams, c, mask)
        return streams
