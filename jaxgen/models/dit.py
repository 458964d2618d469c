"""Diffusion transformers: DiT (arXiv:2212.09748), SiT (2401.08740, the same net) and LightningDiT (2501.01423).

An image becomes patches, patches become tokens, and adaLN-Zero conditions every block on noise level and class.
"""

from typing import Literal, TypedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.attention import attend
from jaxgen.nn.conditioning import ConditionEmbedding
from jaxgen.nn.positions import Rope, SinCos, rotate
from jaxgen.nn.transformer import (
    Dense,
    DenseGeneral,
    Gelu,
    LayerNorm,
    Mlp,
    Norm,
    Patches,
    ZeroDense,
    check_heads,
    modulate,
)
from jaxgen.parallel.rules import ByPath, Replicated, Split
from jaxgen.typing import Condition, Precision


class Size(TypedDict):
    """What the published sizes differ in: `DiT(**XL, patch=2)` is DiT-XL/2."""

    width: int
    depth: int
    heads: int


S = Size(width=384, depth=12, heads=6)  # arXiv:2212.09748, table 1
B = Size(width=768, depth=12, heads=12)
L = Size(width=1024, depth=24, heads=16)
XL = Size(width=1152, depth=28, heads=16)


DIT = ByPath(
    (
        (r"/blocks/qkv/(kernel|bias)$", Split(-2)),  # kernel [depth width 3 heads c]
        (r"/blocks/out/kernel$", Split(-2)),
        (r"/blocks/up/(kernel|bias)$", Split(-1)),
        (r"/blocks/down/kernel$", Split(-2)),
        ("", Replicated()),
    )
)
"""Tensor parallelism: devices share the heads of attention and the hidden channels of the MLP, so that one sum over
the devices ends each branch (Megatron-LM, arXiv:1909.08053, section 3)."""

AXES = (
    (r"\bblocks/qkv/kernel$", "ninoo"),
    (r"\bblocks/up/kernel$", "nino"),  # of SwiGlu; Gelu's has an axis less
    (r"\bblocks/\w+/kernel$", "nio"),
)
"""Which axes of the blocks' kernels are inputs and outputs, for `Muon`: queries, keys, values, gates and hidden values
of each layer are matrices of their own."""


class Block(nn.Module):
    """Attention among tokens, then an MLP on each: residual branches, normalised, modulated and gated by `c`."""

    heads: int
    norm: Norm
    mlp: Mlp
    qk_norm: Norm | None
    dtype: Precision

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], c: Float[Array, "b c"], angles: Float[Array, "n a"] | None
    ) -> tuple[Float[Array, "b n c"], None]:
        """Return the tokens, and None for what a scan would stack."""
        # Gates start at 0, so that every block starts as the identity (adaLN-Zero).
        modulation = ZeroDense(6 * x.shape[-1], dtype=self.dtype, name="modulation")(nn.silu(c))
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(modulation, 6, axis=-1)
        y = modulate(self.norm(x, dtype=self.dtype, name="norm1"), shift1, scale1)
        x = x + gate1[:, None] * self.attention(y, angles)
        y = modulate(self.norm(x, dtype=self.dtype, name="norm2"), shift2, scale2)
        return x + gate2[:, None] * self.mlp(y, dtype=self.dtype), None

    def attention(self, x: Float[Array, "b n c"], angles: Float[Array, "n a"] | None) -> Float[Array, "b n c"]:
        width = x.shape[-1]
        # Heads have an axis of their own, over which devices can share them.
        qkv = DenseGeneral((3, self.heads, width // self.heads), dtype=self.dtype, name="qkv")(x)
        q, k, v = (qkv[:, :, i] for i in range(3))
        if self.qk_norm is not None:
            q = self.qk_norm(q, dtype=self.dtype, name="query_norm")
            k = self.qk_norm(k, dtype=self.dtype, name="key_norm")
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return Dense(width, dtype=self.dtype, name="out")(attend(q, k, v))


class DiT(nn.Module):
    """A denoiser of images: x f32[b h w c] and noise level f32[b] to f32[b h w c]; no variance is learned.

    Its output is 0 at first. LightningDiT is `norm=RmsNorm(), mlp=SwiGlu(), rope=Rope()`, with `qk_norm=RmsNorm()`
    where training in bfloat16 diverges.

    Raises UserError unless the patch divides the image, the heads the width, and the condition fits `classes`.
    """

    width: int = 384
    """Channels of a token."""
    depth: int = 12
    """Blocks."""
    heads: int = 6
    patch: int | tuple[int, int] = 2
    """Side of a patch in pixels, or its height and width."""
    classes: int = 0
    """Number of classes, without the null class; 0 for a net that takes no label."""
    norm: Norm = LayerNorm()
    mlp: Mlp = Gelu()
    qk_norm: Norm | None = None
    """Of queries and keys, head by head: it bounds the attention's logits."""
    position: SinCos | None = SinCos()
    """Added to each token: where its patch lies."""
    rope: Rope | None = None
    """Used in attention, in addition to `position` or in its place: where a patch lies."""
    remat: bool = False
    """Recompute each block in the backward pass rather than keep its activations."""
    recomputed: Literal["all", "cheap"] = "all"
    """What `remat` recomputes of a block: all of it, or all but its matrix products, which are kept: faster than either
    keeping all or recomputing all where memory allows (benchmarks/results/README.md)."""
    unroll: int = 1
    """Blocks that one turn of the scan over the depth computes: more compile longer and copy less."""
    dtype: Precision = "float32"
    """Type that the blocks compute in; parameters, embeddings and the output are float32."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], noise: Float[Array, " b"], condition: Condition, *, train: bool
    ) -> Float[Array, "b h w c"]:
        del train  # nothing here differs: classes are dropped by the objective
        _, height, width, channels = x.shape
        patches = Patches.of("dit", height, width, self.patch)
        check_heads("dit", self.width, self.heads)

        c = ConditionEmbedding(self.width, self.classes, name="condition")(noise, condition)
        tokens = Dense(self.width, name="patch")(patches.cut(x))
        if self.position is not None:
            tokens = tokens + jnp.asarray(self.position.table(patches.rows, patches.columns, self.width))[None]
        head = self.width // self.heads
        angles = None if self.rope is None else jnp.asarray(self.rope.angles(patches.rows, patches.columns, head))

        # One block, compiled once: its parameters have the depth as their first axis.
        policy = None if self.recomputed == "all" else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
        stack = nn.scan(
            nn.remat(Block, prevent_cse=False, policy=policy) if self.remat else Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(nn.broadcast, nn.broadcast),
            length=self.depth,
            unroll=self.unroll,
        )
        blocks = stack(self.heads, self.norm, self.mlp, self.qk_norm, self.dtype, name="blocks")
        tokens, _ = blocks(tokens.astype(self.dtype), c, angles)

        shift, scale = jnp.split(ZeroDense(2 * self.width, name="modulation")(nn.silu(c)), 2, axis=-1)
        tokens = modulate(self.norm(tokens, dtype="float32", name="norm"), shift, scale)
        return patches.join(ZeroDense(patches.pixels * channels, name="out")(tokens))
