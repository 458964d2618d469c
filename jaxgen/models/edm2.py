"""The magnitude-preserving U-Net of EDM2 (arXiv:2312.02696, appendix B; its configuration G).

Weights, activations and updates keep a known magnitude: activations have a mean square near 1 in every layer at the
start, and no layer can make them grow except by learning to align its inputs. Equations are numbered as in the paper.

The forward pass normalises weights by `nn.magnitude.unit`, so it ignores their magnitude, which would grow without
bound and slow learning down: the optimizer is meant to apply `unit` too, after every step, to the parameters that
`WEIGHTS` finds (equation 66; `Optimizer(forced_weight_norm=WEIGHTS)`).
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.nn import resample, unet
from jaxgen.nn.attention import attend, split_heads
from jaxgen.nn.conditioning import Fourier, scaled_label_weights
from jaxgen.nn.magnitude import mp_cat, mp_silu, mp_sum, pixel_norm, unit
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]

WEIGHTS = r"weight$"
"""Regular expression that finds the weights of MPConv, and nothing else, by their path."""


def _start(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*s o"]:
    return unit(jax.random.normal(key, shape))


class MPConv(nn.Module):
    """Convolution without bias, or a linear map for kernel 1, of magnitude `gain` (equation 47)."""

    features: int
    kernel: int = 1
    """Height and width of the kernel; odd."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b *s i"], gain: float | Float[Array, ""] = 1.0) -> Float[Array, "b *s o"]:
        size = () if self.kernel == 1 else (self.kernel, self.kernel)
        weight = self.param("weight", _start, (*size, x.shape[-1], self.features))
        fan_in = weight.size // self.features
        weight = (unit(weight) * (gain / math.sqrt(fan_in))).astype(self.dtype)
        x = x.astype(self.dtype)
        if not size:
            return x @ weight
        return jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


class Residual(nn.Module):
    """The residual branch of a block, in which the embedding scales each channel by a factor that starts at 1."""

    features: int
    dropout: float
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map, embedding: Float[Array, "b e"], train: bool) -> Map:
        y = MPConv(self.features, 3, self.dtype, name="conv0")(mp_silu(x))
        gain = self.param("gain", nn.initializers.zeros, ())
        scale = MPConv(self.features, name="scale")(embedding, gain) + 1.0  # f32, as the embedding is
        y = mp_silu(y * scale.astype(y.dtype)[:, None, None])
        y = nn.Dropout(self.dropout, deterministic=not train)(y)
        return MPConv(self.features, 3, self.dtype, name="conv1")(y)


class Attention(nn.Module):
    """Cosine self-attention over all cells of a map: queries, keys and values have unit magnitude (section B.4)."""

    head_channels: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Map:
        channels = x.shape[-1]
        qkv = MPConv(3 * channels, dtype=self.dtype, name="qkv")(x)
        q, k, v = map(pixel_norm, split_heads(qkv, self.head_channels))
        return MPConv(channels, dtype=self.dtype, name="out")(attend(q, k, v).reshape(x.shape))


class Block(nn.Module):
    """Abstract: what the blocks of encoder and decoder share; they differ in how they begin (figure 21)."""

    features: int
    resample: Callable[[Map], Map] = resample.keep
    attention: bool = False
    head_channels: int = 64
    dropout: float = 0.0
    block_balance: float = 0.3
    attention_balance: float = 0.3
    clip: float = 256.0
    dtype: Precision = "float32"

    def _skip(self, x: Map) -> Map:
        return x if x.shape[-1] == self.features else MPConv(self.features, dtype=self.dtype, name="skip")(x)

    def _residual(self, x: Map, embedding: Float[Array, "b e"], train: bool) -> Map:
        return Residual(self.features, self.dropout, self.dtype, name="residual")(x, embedding, train)

    def _end(self, x: Map, y: Map) -> Map:
        x = mp_sum(x, y, self.block_balance)
        if self.attention:
            x = mp_sum(x, Attention(self.head_channels, self.dtype, name="attention")(x), self.attention_balance)
        return jnp.clip(x, -self.clip, self.clip)


class EncoderBlock(Block):
    """Normalise each pixel on the main path, then add the residual branch."""

    @nn.compact
    def __call__(self, x: Map, embedding: Float[Array, "b e"], train: bool) -> Map:
        x = pixel_norm(self._skip(self.resample(x)))
        return self._end(x, self._residual(x, embedding, train))


class DecoderBlock(Block):
    """Add the residual branch to the main path, which is cut to the block's channels."""

    @nn.compact
    def __call__(self, x: Map, embedding: Float[Array, "b e"], train: bool) -> Map:
        x = self.resample(x)
        return self._end(self._skip(x), self._residual(x, embedding, train))


class Edm2UNet(nn.Module):
    """Map x f32[b h w c] and a noise level f32[b] to f32[b h w channels].

    Its output is 0 until the first step. The null class is a row of zeros to the net; a condition without a label
    means that class too. The embedding's frequencies are in the collection "constants". Raises UserError where height
    and width cannot be halved once for each resolution but the first, where the widths do not divide into heads, and
    where the condition does not fit `classes`.
    """

    classes: int = 0
    """Number of classes, without the null class; 0 for none."""
    channels: int | None = None
    """Channels of the output; None for those of the input."""
    model_channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    """Width at each resolution, full first, in units of model_channels; each halves the one before."""
    blocks: int = 3
    """Residual blocks per resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16, 8)
    """Heights of the maps that get self-attention; the smallest map always gets it once."""
    head_channels: int = 64
    """Channels of an attention head."""
    dropout: float = 0.0
    label_balance: float = 0.5
    """Share of the class in the embedding, 0 to 1; the rest is the noise level's."""
    concat_balance: float = 0.5
    """Share of the skip connections where they join, 0 to 1; the rest is the main path's."""
    block_balance: float = 0.3
    """Share of the residual branch, 0 to 1."""
    attention_balance: float = 0.3
    """Share of attention, 0 to 1."""
    clip: float = 256.0
    """Largest magnitude of an activation that leaves a block."""
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
            raise UserError("edm2: multipliers is empty; give the width of at least one resolution, such as (1, 2)")
        resample.check_halvings(x.shape[1], x.shape[2], len(self.multipliers) - 1)
        channels = self.channels or x.shape[-1]
        encoder, decoder = (
            functools.partial(
                nn.remat(block, static_argnums=(3,)) if self.remat else block,  # 3: `train`, counted from self
                head_channels=self.head_channels,
                dropout=self.dropout,
                block_balance=self.block_balance,
                attention_balance=self.attention_balance,
                clip=self.clip,
                dtype=self.dtype,
            )
            for block in (EncoderBlock, DecoderBlock)
        )
        widths = [self.model_channels * m for m in self.multipliers]
        embedding = self._embed(noise, condition, widths)

        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)  # instead of biases
        x = MPConv(widths[0], 3, self.dtype, name="in")(x)
        x = unet.walk(
            x,
            embedding,
            train,
            encoder=encoder,
            decoder=decoder,
            join=functools.partial(mp_cat, t=self.concat_balance),
            widths=widths,
            blocks=self.blocks,
            attention=self.attention,
            attending=self.blocks + 1,
        )
        gain = self.param("gain", nn.initializers.zeros, ())
        return MPConv(channels, 3, name="out")(x, gain)

    def _embed(self, noise: Float[Array, " b"], condition: Condition, widths: list[int]) -> Float[Array, "b e"]:
        x = MPConv(max(widths), name="embed_noise")(Fourier(widths[0], name="fourier")(noise))
        weights = scaled_label_weights(condition, self.classes, len(x))
        if weights is not None:
            x = mp_sum(x, MPConv(max(widths), name="embed_label")(weights), self.label_balance)
        return mp_silu(x)
