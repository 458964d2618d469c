"""The U-Net of Stable Diffusion 1, whose cells attend to a text (latent diffusion, arXiv:2112.10752)."""

import functools
from collections.abc import Callable
from typing import ClassVar, TypedDict

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgen.errors import UserError
from jaxgen.nn import unet
from jaxgen.nn.attention import attend
from jaxgen.nn.conditioning import sinusoid, text_of
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.resample import check_halvings, halve, keep
from jaxgen.nn.transformer import check_heads
from jaxgen.parallel.rules import ByPath, Replicated, Split
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]
Text = Float[Array, "b n t"]
Mask = Bool[Array, "b n"] | None

zeros = nn.initializers.zeros


class Size(TypedDict):
    """What sizes differ in: `TextUNet(**SD1)`."""

    model_channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    heads: int


SD1 = Size(model_channels=320, multipliers=(1, 2, 4, 4), blocks=2, attention=(0, 1, 2), heads=8)
"""860 M parameters with 4 channels of latents and texts of 768."""

TEXT_UNET = ByPath(
    (
        (r"/(qkv|query|kv)/kernel$", Split(-2)),  # kernel [width (3) heads c]
        (r"/layer\d+/(out|out_text|down)/kernel$", Split(-2)),
        (r"/up/(kernel|bias)$", Split(-1)),
        (r"/(conv0|shift)/(kernel|bias)$", Split(-1)),
        (r"/(encode|middle|decode)\w+/norm1/(scale|bias)$", Split(-1)),
        (r"/conv1/kernel$", Split(-2)),
        ("", Replicated()),
    )
)
"""Tensor parallelism: devices share heads, hidden channels of the MLPs and of the residual blocks, so that one sum over
the devices ends each branch (Megatron-LM, arXiv:1909.08053, section 3)."""

AXES = (
    (r"/(qkv|query|kv)/kernel$", "inoo"),
    (r"/layer\d+/up/kernel$", "ino"),
)
"""Which axes of the attention's and the gated MLPs' kernels are inputs and outputs, for `Muon`: queries, keys, values,
gates and hidden values are matrices of their own."""


class Layer(nn.Module):
    """Self-attention, attention to the text and a gated MLP: residual branches, normalised first."""

    heads: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "b s c"], text: Text, mask: Mask) -> Float[Array, "b s c"]:
        channels = x.shape[-1]
        norm = functools.partial(nn.LayerNorm, epsilon=1e-5, dtype=self.dtype)
        dense = functools.partial(nn.Dense, channels, dtype=self.dtype)

        def heads(y: Float[Array, "b _ _"], parts: int, name: str) -> list[Float[Array, "b _ n d"]]:
            # Heads have an axis of their own, over which devices can share them.
            shape = (parts, self.heads, channels // self.heads)
            split = nn.DenseGeneral(shape, use_bias=False, dtype=self.dtype, name=name)(y)
            return [split[:, :, i] for i in range(parts)]

        x = x + dense(name="out")(attend(*heads(norm(name="norm1")(x), 3, "qkv")))
        q, k, v = *heads(norm(name="norm2")(x), 1, "query"), *heads(text, 2, "kv")
        x = x + dense(name="out_text")(attend(q, k, v, None if mask is None else mask[:, None]))
        # GEGLU (arXiv:2002.05202): value and gate lie on an axis of their own, so that devices can share them.
        both = nn.DenseGeneral((2, 4 * channels), dtype=self.dtype, name="up")(norm(name="norm3")(x))
        return x + dense(name="down")(both[:, :, 0] * nn.gelu(both[:, :, 1], approximate=False))


class Transformer(nn.Module):
    """A residual branch in which the cells of a map are tokens; 0 at first."""

    heads: int
    depth: int
    groups: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map, text: Text, mask: Mask) -> Map:
        b, h, w, channels = x.shape
        check_heads("text_unet", channels, self.heads)
        y = GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        y = nn.Dense(channels, dtype=self.dtype, name="in")(y).reshape(b, h * w, channels)
        for i in range(self.depth):
            y = Layer(self.heads, self.dtype, name=f"layer{i}")(y, text, mask)
        y = nn.Dense(channels, kernel_init=zeros, dtype=self.dtype, name="out")(y)
        return x + y.reshape(x.shape)


class Block(nn.Module):
    """Residual block in which the embedding shifts each channel; it may end in a transformer."""

    features: int
    attention: bool
    heads: int
    depth: int
    groups: int
    dropout: float
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map, embedding: Float[Array, "b e"], text: Text, mask: Mask, train: bool) -> Map:
        conv = functools.partial(nn.Conv, self.features, dtype=self.dtype)
        norm = functools.partial(GroupNorm, self.groups, dtype=self.dtype)
        y = conv((3, 3), name="conv0")(nn.silu(norm(name="norm0")(x)))
        shift = nn.Dense(self.features, name="shift")(embedding)  # f32, as the embedding is
        y = nn.silu(norm(name="norm1")(y + shift.astype(y.dtype)[:, None, None]))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = conv((3, 3), kernel_init=zeros, name="conv1")(y)
        x = y + (x if x.shape[-1] == self.features else conv((1, 1), name="skip")(x))
        if self.attention:
            x = Transformer(self.heads, self.depth, self.groups, self.dtype, name="transformer")(x, text, mask)
        return x


class TextUNet(nn.Module):
    """Map x f32[b h w c], a noise level f32[b] and a text to f32[b h w channels], 0 at first.

    The condition holds "text" f32[b n t], a vector for each token, "pooled" f32[b d], and where some tokens are padding
    that must not be seen "text_mask" bool[b n]. Raises UserError where height and width cannot be halved once for each
    level but the first, where widths do not divide into groups or heads, and where the condition has no text.
    """

    channels: int | None = None
    """Channels of the output; None for those of the input."""
    model_channels: int = 64
    multipliers: tuple[int, ...] = (1, 2)
    """Width at each level, full resolution first, in units of model_channels; each level halves the one before."""
    blocks: int = 1
    """Residual blocks per level on the way down; one more on the way up."""
    attention: tuple[int, ...] = (0, 1)
    """Levels whose blocks end in a transformer, 0 for full resolution; the middle, once, always does."""
    heads: int = 4
    """Heads of attention at every level."""
    depth: int = 1
    """Layers of a transformer."""
    groups: int = 32
    """Groups of channels that are normalised together."""
    embed_pooled: bool = False
    """Whether the text's one vector joins the embedding of the noise level."""
    dropout: float = 0.0
    remat: bool = False
    """Recompute each block in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"
    classes: ClassVar[int] = 0  # a text takes a label's place

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], noise: Float[Array, " b"], condition: Condition, *, train: bool
    ) -> Float[Array, "b h w o"]:
        self._check(x.shape[1], x.shape[2])
        channels = self.channels or x.shape[-1]
        text, pooled, mask = text_of(condition)
        embedding = self._embed(noise, pooled)
        cut = nn.remat(Block, static_argnums=(5,)) if self.remat else Block  # 5: `train`, counted from self

        def block(
            features: int, resample: Callable[[Map], Map] = keep, attention: bool = False, *, name: str
        ) -> unet.Block:
            if resample is not keep:
                return lambda x, embedding, train: self._resampled(x, resample, name)
            made = cut(
                features, attention, self.heads, self.depth, self.groups, self.dropout, self.dtype, name=name
            )  # fmt: skip
            return lambda x, embedding, train: made(x, embedding, text.astype(self.dtype), mask, train)

        x = nn.Conv(self.model_channels, (3, 3), dtype=self.dtype, name="in")(x)
        x = unet.walk(
            x,
            embedding,
            train,
            encoder=block,
            decoder=block,
            join=lambda x, skip: jnp.concatenate([x, skip], axis=-1),
            widths=[self.model_channels * m for m in self.multipliers],
            blocks=self.blocks,
            attention=tuple(x.shape[1] >> level for level in self.attention),
            attending=self.blocks + 1,
        )
        x = nn.silu(GroupNorm(self.groups, name="norm")(x))
        return nn.Conv(channels, (3, 3), kernel_init=zeros, name="out")(x)

    def _resampled(self, x: Map, resample: Callable[[Map], Map], name: str) -> Map:
        """Halve a map by a convolution of stride 2, or repeat its cells 2×2 and convolve."""
        conv = functools.partial(nn.Conv, x.shape[-1], (3, 3), padding=((1, 1), (1, 1)), dtype=self.dtype, name=name)
        return conv(strides=2)(x) if resample is halve else conv()(resample(x))

    def _embed(self, noise: Float[Array, " b"], pooled: Float[Array, "b d"]) -> Float[Array, "b e"]:
        width = 4 * self.model_channels
        x = nn.silu(nn.Dense(width, name="embed0")(sinusoid(noise, self.model_channels)))
        x = nn.Dense(width, name="embed1")(x)
        if self.embed_pooled:
            y = nn.silu(nn.Dense(width, name="pooled0")(pooled.astype(jnp.float32)))
            x = x + nn.Dense(width, name="pooled1")(y)
        return nn.silu(x)

    def _check(self, height: int, width: int) -> None:
        levels = len(self.multipliers)
        if not levels:
            raise UserError("text_unet: multipliers is empty; give the width of at least one level, such as (1, 2)")
        if wrong := [level for level in self.attention if not 0 <= level < levels]:
            raise UserError(f"text_unet: attention names level {wrong[0]}; the net has levels 0 to {levels - 1}")
        check_halvings(height, width, levels - 1)
