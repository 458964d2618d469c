"""The DDPM++ U-Net of score-based models (arXiv:2011.13456) as EDM trains it (arXiv:2206.00364, appendix F.4)."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn import resample, unet
from jaxgen.nn.attention import attend, split_heads
from jaxgen.nn.conditioning import scaled_label_weights, sinusoid
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]

# Kernels start by Xavier's rule; those that end a branch start so small that the branch is nearly 0.
_start = nn.initializers.xavier_uniform()
_start_attention = nn.initializers.variance_scaling(0.2, "fan_avg", "uniform")
_start_silent = nn.initializers.variance_scaling(1e-5**2, "fan_avg", "uniform")


def _norm(x: Map, dtype: Precision, name: str) -> Map:
    return GroupNorm(min(32, x.shape[-1] // 4), epsilon=1e-6, dtype=dtype, name=name)(x)


class Attention(nn.Module):
    """Residual self-attention over all cells of a map."""

    head_channels: int | None
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Map:
        channels = x.shape[-1]
        y = _norm(x, self.dtype, "norm")
        qkv = nn.Dense(3 * channels, kernel_init=_start_attention, dtype=self.dtype, name="qkv")(y)
        size = channels if self.head_channels is None else self.head_channels
        y = attend(*split_heads(qkv, size)).reshape(x.shape)
        y = nn.Dense(channels, kernel_init=_start_silent, dtype=self.dtype, name="out")(y)
        return (x + y) * math.sqrt(0.5)


class Block(nn.Module):
    """Residual block in which the embedding shifts each channel; it may resample, and end in attention."""

    features: int
    resample: Callable[[Map], Map] = resample.keep
    attention: bool = False
    dropout: float = 0.0
    head_channels: int | None = None
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map, embedding: Float[Array, "b e"], train: bool) -> Map:
        conv = functools.partial(nn.Conv, self.features, dtype=self.dtype)
        y = self.resample(nn.silu(_norm(x, self.dtype, "norm0")))
        y = conv((3, 3), kernel_init=_start, name="conv0")(y)
        shift = nn.Dense(self.features, kernel_init=_start, name="shift")(embedding)  # f32, as the embedding is
        y = nn.silu(_norm(y + shift.astype(y.dtype)[:, None, None], self.dtype, "norm1"))
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        y = conv((3, 3), kernel_init=_start_silent, name="conv1")(y)
        if x.shape != y.shape:
            project = conv((1, 1), kernel_init=_start, name="skip")
            # Repeating cells and a 1×1 convolution commute; before it there are fewer cells to convolve.
            x = self.resample(project(x)) if self.resample is resample.double else project(self.resample(x))
        x = (x + y) * math.sqrt(0.5)
        if self.attention:
            x = Attention(self.head_channels, self.dtype, name="attention")(x)
        return x


class SongUNet(nn.Module):
    """Map x f32[b h w c] and a noise level f32[b] to f32[b h w channels].

    The null class is a row of zeros to the net; a condition without a label means that class too. Raises UserError
    where height and width cannot be halved once for each resolution but the first, where the widths do not divide into
    normalisation groups or heads, and where the condition does not fit `classes`.
    """

    classes: int = 0
    """Number of classes, without the null class; 0 for none."""
    channels: int | None = None
    """Channels of the output; None for those of the input."""
    model_channels: int = 128
    multipliers: tuple[int, ...] = (2, 2, 2)
    """Width at each resolution, full first, in units of model_channels; each halves the one before."""
    blocks: int = 4
    """Residual blocks per resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Heights of the maps that get self-attention; the smallest map always gets it once."""
    head_channels: int | None = None
    """Channels of an attention head; None for one head of them all."""
    embedding: int = 4
    """Width of the embedding of noise and class, in units of model_channels."""
    dropout: float = 0.0
    remat: bool = False
    """Recompute each block in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        noise: Float[Array, " b"],
        condition: Condition,
        *,
        train: bool,
    ) -> Float[Array, "b h w o"]:
        if not self.multipliers:
            raise UserError("songunet: multipliers is empty; give the width of at least one resolution, such as (1, 2)")
        resample.check_halvings(x.shape[1], x.shape[2], len(self.multipliers) - 1)
        channels = self.channels or x.shape[-1]
        block = functools.partial(
            nn.remat(Block, static_argnums=(3,)) if self.remat else Block,  # 3: `train`, counted from self
            dropout=self.dropout,
            head_channels=self.head_channels,
            dtype=self.dtype,
        )
        embedding = self._embed(noise, condition)

        x = nn.Conv(self.model_channels, (3, 3), kernel_init=_start, dtype=self.dtype, name="in")(x)
        x = unet.walk(
            x,
            embedding,
            train,
            encoder=block,
            decoder=block,
            join=lambda x, skip: jnp.concatenate([x, skip], axis=-1),
            widths=[self.model_channels * m for m in self.multipliers],
            blocks=self.blocks,
            attention=self.attention,
            attending=1,
        )
        x = nn.silu(_norm(x, "float32", "norm"))
        return nn.Conv(channels, (3, 3), kernel_init=_start_silent, name="out")(x)

    def _embed(self, noise: Float[Array, " b"], condition: Condition) -> Float[Array, "b e"]:
        dense = functools.partial(nn.Dense, kernel_init=_start)
        x = sinusoid(noise, self.model_channels, endpoint=True)
        weights = scaled_label_weights(condition, self.classes, len(x))
        if weights is not None:
            x = x + dense(self.model_channels, name="label")(weights)
        x = nn.silu(dense(self.embedding * self.model_channels, name="embed0")(x))
        return nn.silu(dense(self.embedding * self.model_channels, name="embed1")(x))
