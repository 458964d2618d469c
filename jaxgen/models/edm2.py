"""The magnitude-preserving U-Net of EDM2 (arXiv:2312.02696, appendix B; its configuration G).

Weights, activations and updates keep a known magnitude: activations have a mean square near 1 in every layer at the
start, and no layer can make them grow except by learning to align its inputs. Equations are numbered as in the paper.

`optim.unit` is used here in the forward pass, and is meant for use after every step of the optimizer on the same
parameters, those that `WEIGHTS` finds (equation 66): the forward pass ignores their magnitude, which would grow
without bound and slow learning down.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.models.songunet import class_weights
from jaxgen.nn import resample
from jaxgen.nn.attention import attend, split_heads
from jaxgen.nn.conditioning import Fourier
from jaxgen.optim.transforms import unit
from jaxgen.typing import Precision

Map = Float[Array, "b _ _ _"]

WEIGHTS = r"weight$"
"""Regular expression that finds the weights of MPConv, and nothing else, by their path."""


def _by_root_mean_square(x: Float[Array, "*s"], axes: tuple[int, ...]) -> Float[Array, "*s"]:
    square = jnp.square(x.astype(jnp.float32)).mean(axes, keepdims=True)
    # Far below float32's resolution beside anything but zero, where it keeps the root's gradient finite.
    return (x / (1e-4 + jnp.sqrt(square + 1e-30))).astype(x.dtype)


def pixel_norm(x: Float[Array, "*s c"]) -> Float[Array, "*s c"]:
    """Scale each vector of channels to a root mean square of 1 (equation 30)."""
    return _by_root_mean_square(x, (-1,))


def mp_silu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """SiLU, of unit mean square for standard normal x (equation 81)."""
    return nn.silu(x) / 0.596


def mp_sum(a: Float[Array, "*s"], b: Float[Array, "*s"], t: float) -> Float[Array, "*s"]:
    """Blend a and b, at t = 0 all a, of unit mean square where a and b have it and are uncorrelated (equation 88)."""
    norm = math.hypot(1 - t, t)
    return a * ((1 - t) / norm) + b * (t / norm)


def mp_cat(a: Float[Array, "*s c"], b: Float[Array, "*s d"], t: float) -> Float[Array, "*s _"]:
    """Concatenate channels of unit mean square to the same, b's share of the whole being t²/((1-t)²+t²) (eq. 103)."""
    c, d = a.shape[-1], b.shape[-1]
    scale = math.sqrt(c + d) / math.hypot(1 - t, t)
    return jnp.concatenate([a * (scale * (1 - t) / math.sqrt(c)), b * (scale * t / math.sqrt(d))], axis=-1)


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
    """The residual branch of a block, told of the embedding by a scale of each channel that starts at 1."""

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
    """What the blocks of encoder and decoder share; they differ in what they make of their input (figure 21)."""

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
    """Map x f32[b h w c], a noise level f32[b] and label weights f32[b classes + 1] to f32[b h w channels].

    Its output is 0 until the first step. The label's last column is the null class, of which the net is told by a row
    of zeros; no label is that class too. The embedding's frequencies are in the collection "constants".
    Raises UserError where height and width cannot be halved once for each resolution but the first, where the widths
    do not divide into heads, and where the label's columns are not classes + 1.
    """

    classes: int = 0
    """Classes that the net is told apart by `label`; 0 for none."""
    channels: int | None = None
    """Channels of the output; None for those of the input."""
    model_channels: int = 192
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    """Width at each resolution, full first, in units of model_channels; each halves the one before."""
    blocks: int = 3
    """Residual blocks per resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16, 8)
    """Heights of the maps that get self-attention; the smallest map gets it once in any case."""
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
        label: Float[Array, "b n"] | None = None,
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
        embedding = self._embed(noise, label, widths)

        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], axis=-1)  # stands in for the biases that there are none of
        x = MPConv(widths[0], 3, self.dtype, name="in")(x)
        skips = [x]
        for level, width in enumerate(widths):
            if level:
                x = encoder(x.shape[-1], resample.halve, name=f"down{level}")(x, embedding, train)
                skips.append(x)
            attention = x.shape[1] in self.attention
            for i in range(self.blocks):
                x = encoder(width, attention=attention, name=f"encode{level}_{i}")(x, embedding, train)
                skips.append(x)
        x = decoder(x.shape[-1], attention=True, name="middle0")(x, embedding, train)
        x = decoder(x.shape[-1], name="middle1")(x, embedding, train)
        for level, width in reversed(list(enumerate(widths))):
            attention = x.shape[1] in self.attention
            for i in range(self.blocks + 1):
                x = mp_cat(x, skips.pop(), self.concat_balance)
                x = decoder(width, attention=attention, name=f"decode{level}_{i}")(x, embedding, train)
            if level:
                x = decoder(width, resample.double, name=f"up{level}")(x, embedding, train)
        gain = self.param("gain", nn.initializers.zeros, ())
        return MPConv(channels, 3, name="out")(x, gain)

    def _embed(
        self, noise: Float[Array, " b"], label: Float[Array, "b n"] | None, widths: list[int]
    ) -> Float[Array, "b e"]:
        x = MPConv(max(widths), name="embed_noise")(Fourier(widths[0], name="fourier")(noise))
        if self.classes:
            weights = class_weights(label, self.classes, len(x))
            x = mp_sum(x, MPConv(max(widths), name="embed_label")(weights), self.label_balance)
        return mp_silu(x)
