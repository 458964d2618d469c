"""Diffusion transformers: DiT (arXiv:2212.09748), SiT (2401.08740, the same net) and LightningDiT (2501.01423).

An image becomes patches, patches become tokens, and adaLN-Zero conditions every block on noise level and class.
"""

import dataclasses
import functools
import math
from typing import Literal, Protocol, TypedDict, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn.attention import attend
from jaxgen.nn.conditioning import ConditionEmbedding
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

Dense = functools.partial(nn.Dense, kernel_init=nn.initializers.xavier_uniform())
DenseGeneral = functools.partial(nn.DenseGeneral, kernel_init=nn.initializers.xavier_uniform())
ZeroDense = functools.partial(nn.Dense, kernel_init=nn.initializers.zeros)


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


@runtime_checkable
class Norm(Protocol):
    """How vectors along the last axis are normalised; called inside a compact method."""

    def __call__(self, x: Float[Array, "*b c"], *, dtype: Precision, name: str) -> Float[Array, "*b c"]: ...


@dataclasses.dataclass(frozen=True)
class LayerNorm:
    """Mean 0 and variance 1 (arXiv:1607.06450)."""

    epsilon: float = 1e-6
    learned: bool = False
    """Whether a scale and a bias follow; the blocks' adaLN makes up for them, queries and keys have none."""

    def __call__(self, x: Float[Array, "*b c"], *, dtype: Precision, name: str) -> Float[Array, "*b c"]:
        return nn.LayerNorm(self.epsilon, dtype=dtype, use_bias=self.learned, use_scale=self.learned, name=name)(x)


@dataclasses.dataclass(frozen=True)
class RmsNorm:
    """Mean square 1, then a learned scale (arXiv:1910.07467)."""

    epsilon: float = 1e-6

    def __call__(self, x: Float[Array, "*b c"], *, dtype: Precision, name: str) -> Float[Array, "*b c"]:
        return nn.RMSNorm(self.epsilon, dtype=dtype, name=name)(x)


@runtime_checkable
class Mlp(Protocol):
    """What a block applies to each token on its own; called inside a compact method."""

    def __call__(self, x: Float[Array, "b n c"], *, dtype: Precision) -> Float[Array, "b n c"]: ...


@dataclasses.dataclass(frozen=True)
class Gelu:
    """Two layers with GELU in its tanh form between."""

    ratio: float = 4.0
    """Hidden channels over channels."""

    def __call__(self, x: Float[Array, "b n c"], *, dtype: Precision) -> Float[Array, "b n c"]:
        y = Dense(int(x.shape[-1] * self.ratio), dtype=dtype, name="up")(x)
        return Dense(x.shape[-1], dtype=dtype, name="down")(nn.gelu(y, approximate=True))


@dataclasses.dataclass(frozen=True)
class SwiGlu:
    """Two layers, the hidden one the product of a linear map and the SiLU of another (arXiv:2002.05202)."""

    ratio: float = 4.0
    """Hidden channels over channels of the Gelu with as many weights; here they are two thirds of it."""

    def __call__(self, x: Float[Array, "b n c"], *, dtype: Precision) -> Float[Array, "b n c"]:
        hidden = int(2 * x.shape[-1] * self.ratio / 3)
        # Gate and value lie on an axis of their own, so that hidden channels can be split over devices in one piece.
        both = DenseGeneral((2, hidden), dtype=dtype, name="up")(x)
        return Dense(x.shape[-1], dtype=dtype, name="down")(nn.silu(both[..., 0, :]) * both[..., 1, :])


@dataclasses.dataclass(frozen=True)
class SinCos:
    """Fixed sines and cosines of a patch's column, then of its row, added to its token."""

    side: int | None = None
    """Rows and columns of the grid trained on: those of any other are scaled to span the same 0 to `side`, so that no
    position is new to the net. None: positions are counted in patches at any size."""

    def table(self, rows: int, columns: int, width: int) -> np.ndarray:
        """Return f32[rows·columns width]; raise UserError unless `width` is a multiple of 4."""
        if width % 4:
            raise UserError(f"dit: sines and cosines of two axes need a width that is a multiple of 4, not {width}")
        row, column = _grid(rows, columns, self.side)
        frequency = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
        angles = [np.outer(position, frequency) for position in (column, row)]
        return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary embedding in two dimensions: pairs of a head's channels turn by the row, the other half by the column.

    So a product of query and key depends on the patches' difference alone (arXiv:2104.09864; over two axes as in
    EVA-02, arXiv:2303.11331).
    """

    side: int | None = None
    """As in SinCos."""
    theta: float = 10_000.0
    """The slowest turn takes nearly 2π·theta patches, the fastest 2π."""

    def angles(self, rows: int, columns: int, head: int) -> np.ndarray:
        """Return f32[rows·columns head/2], an angle a pair; raise UserError unless `head` is a multiple of 4."""
        if head % 4:
            raise UserError(f"dit: rotating by two axes needs width / heads to be a multiple of 4, not {head}")
        frequency = self.theta ** (-np.arange(head // 4) / (head // 4))
        positions = _grid(rows, columns, self.side)
        return np.concatenate([np.outer(p, frequency) for p in positions], axis=1).astype(np.float32)


def _grid(rows: int, columns: int, side: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows f64[n] and the columns f64[n] of all patches, row by row."""
    y, x = (np.arange(n) * (1.0 if side is None else side / n) for n in (rows, columns))
    row, column = np.meshgrid(y, x, indexing="ij")
    return row.reshape(-1), column.reshape(-1)


def rotate(x: Float[Array, "b n heads c"], angles: Float[Array, "n c//2"]) -> Float[Array, "b n heads c"]:
    """Turn each pair of neighbouring channels of each token by its angle, in float32."""
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)


def modulate(x: Float[Array, "b n c"], shift: Float[Array, "b c"], scale: Float[Array, "b c"]) -> Float[Array, "b n c"]:
    """Scale and shift all tokens of an image alike; a scale of 0 leaves them as they are."""
    return x * (1 + scale[:, None]) + shift[:, None]


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
    patch: int = 2
    """Height and width of a patch, in pixels."""
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
        (b, height, width, channels), p = x.shape, self.patch
        self._check(height, width)
        rows, columns = height // p, width // p

        c = ConditionEmbedding(self.width, self.classes, name="condition")(noise, condition)
        patches = x.reshape(b, rows, p, columns, p, channels).swapaxes(2, 3).reshape(b, rows * columns, -1)
        tokens = Dense(self.width, name="patch")(patches)
        if self.position is not None:
            tokens = tokens + jnp.asarray(self.position.table(rows, columns, self.width))[None]
        head = self.width // self.heads
        angles = None if self.rope is None else jnp.asarray(self.rope.angles(rows, columns, head))

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
        patches = ZeroDense(p * p * channels, name="out")(tokens)
        return patches.reshape(b, rows, columns, p, p, channels).swapaxes(2, 3).reshape(x.shape)

    def _check(self, height: int, width: int) -> None:
        p = self.patch
        if height % p or width % p:
            fit = " × ".join(str(math.ceil(n / p) * p) for n in (height, width))
            raise UserError(f"dit: {height} × {width} does not split into patches of {p}; {fit} does")
        if self.width % self.heads:
            raise UserError(
                f"dit: {self.heads} heads do not share a width of {self.width} evenly; take a divisor of it"
            )
