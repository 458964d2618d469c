"""The autoencoder of latent diffusion (arXiv:2112.10752), as Stable Diffusion 1 and 3 have it: images and latents."""

import dataclasses
import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn import resample
from jaxgen.nn.attention import attend, split_heads
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.parallel.rules import ByPath, Replicated, Split
from jaxgen.typing import Precision

Map = Float[Array, "b _ _ _"]

zeros = nn.initializers.zeros

AUTOENCODER_KL = ByPath(
    (
        (r"/(down|up|middle)\w*/conv0/(kernel|bias)$", Split(-1)),
        (r"/(down|up|middle)\w*/norm1/(scale|bias)$", Split(-1)),
        (r"/(down|up|middle)\w*/conv1/kernel$", Split(-2)),
        ("", Replicated()),
    )
)
"""Tensor parallelism: devices share the hidden channels of the residual blocks, so that one sum over the devices ends
each block (Megatron-LM, arXiv:1909.08053, section 3)."""


@dataclasses.dataclass(frozen=True)
class Level:
    """The residual blocks of one resolution."""

    width: int
    """Channels."""
    blocks: int = 2
    """Residual blocks, 0 or more; the published decoders have one more than their encoders."""


def levels(base: int, multipliers: Sequence[int], blocks: int) -> tuple[Level, ...]:
    """Return levels of widths in units of `base`, full resolution first."""
    return tuple(Level(base * multiplier, blocks) for multiplier in multipliers)


class Residual(nn.Module):
    """Two convolutions beside a skip; the skip alone at first."""

    width: int
    groups: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Map:
        norm = functools.partial(GroupNorm, self.groups, 1e-6, self.dtype)
        conv = functools.partial(nn.Conv, self.width, dtype=self.dtype)
        y = conv((3, 3), name="conv0")(nn.silu(norm(name="norm0")(x)))
        y = conv((3, 3), kernel_init=zeros, name="conv1")(nn.silu(norm(name="norm1")(y)))
        return y + (x if x.shape[-1] == self.width else conv((1, 1), name="skip")(x))


class Attention(nn.Module):
    """A residual branch in which the cells of a map attend to each other, with one head; 0 at first."""

    groups: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Map:
        channels = x.shape[-1]
        y = GroupNorm(self.groups, 1e-6, self.dtype, name="norm")(x)
        q, k, v = split_heads(nn.Dense(3 * channels, dtype=self.dtype, name="qkv")(y), channels)
        y = nn.Dense(channels, kernel_init=zeros, dtype=self.dtype, name="out")(attend(q, k, v))
        return x + y.reshape(x.shape)


class _Stack(nn.Module):
    """What encoder and decoder are made of."""

    out: int
    levels: tuple[Level, ...]
    attention: bool
    groups: int
    remat: bool
    dtype: Precision

    def residual(self, width: int, name: str) -> nn.Module:
        block = nn.remat(Residual) if self.remat else Residual
        return block(width, self.groups, self.dtype, name=name)

    def middle(self, x: Map) -> Map:
        x = self.residual(x.shape[-1], "middle0")(x)
        if self.attention:
            x = Attention(self.groups, self.dtype, name="attention")(x)
        return self.residual(x.shape[-1], "middle1")(x)

    def last(self, x: Map) -> Map:
        x = nn.silu(GroupNorm(self.groups, 1e-6, name="norm")(x))
        return nn.Conv(self.out, (3, 3), name="out")(x)  # f32 for every `dtype`


class Encoder(_Stack):
    """Map images to maps of the lowest resolution."""

    @nn.compact
    def __call__(self, x: Map) -> Map:
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        x = conv(self.levels[0].width, name="in")(x)
        for i, level in enumerate(self.levels):
            if i:
                # Padded below and to the right alone, as the published nets are.
                halve = conv(x.shape[-1], strides=2, padding=((0, 1), (0, 1)), name=f"down{i}")
                x = halve(x)
            for j in range(level.blocks):
                x = self.residual(level.width, f"down{i}_{j}")(x)
        return self.last(self.middle(x))


class Decoder(_Stack):
    """Map latents to images."""

    @nn.compact
    def __call__(self, x: Map) -> Map:
        conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
        x = self.middle(conv(self.levels[-1].width, name="in")(x))
        for i, level in reversed(list(enumerate(self.levels))):
            for j in range(level.blocks):
                x = self.residual(level.width, f"up{i}_{j}")(x)
            if i:
                x = conv(x.shape[-1], name=f"up{i}")(resample.double(x))
        return self.last(x)


class AutoencoderKl(nn.Module):
    """Map images f32[b h w c] in [-1, 1] to means and logarithms of variances of latents, and latents to images.

    Stable Diffusion 1 has the defaults; Stable Diffusion 3 has `channels=16, mixed=False`. A small net has fewer
    channels than `groups=32` divides: give it less. Raises UserError where `factor` does not divide height and width,
    and where encoder and decoder have not as many levels.
    """

    channels: int = 4
    """Channels of a latent."""
    image_channels: int = 3
    encoder: tuple[Level, ...] = levels(128, (1, 2, 4, 4), 2)
    """Full resolution first; each level halves the one before."""
    decoder: tuple[Level, ...] = levels(128, (1, 2, 4, 4), 3)
    """Full resolution first, as in the encoder."""
    patch: int = 1
    """Side of the squares of pixels that are channels of one cell at full resolution; 1: a cell is a pixel. More costs
    less, as the first level of a small net costs most."""
    attention: bool = True
    """Whether the cells of the lowest resolution attend to each other."""
    mixed: bool = True
    """Whether a 1×1 convolution mixes the channels of moments, and another those of latents."""
    groups: int = 32
    """Groups of channels that are normalised together."""
    remat: bool = False
    """Recompute each residual block in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"

    @property
    def factor(self) -> int:
        """Height and width of an image over those of its latent."""
        return self.patch * 2 ** (len(self.encoder) - 1)

    def setup(self) -> None:
        if not self.encoder or len(self.encoder) != len(self.decoder):
            raise UserError(
                f"autoencoder_kl: the encoder has {len(self.encoder)} levels and the decoder {len(self.decoder)}; "
                "give both as many, one at least"
            )
        shared = (self.attention, self.groups, self.remat, self.dtype)
        self.down = Encoder(2 * self.channels, self.encoder, *shared, name="encoder")
        self.up = Decoder(self.image_channels * self.patch**2, self.decoder, *shared, name="decoder")
        if self.mixed:
            self.quant = nn.Conv(2 * self.channels, (1, 1), dtype=self.dtype)
            self.post_quant = nn.Conv(self.channels, (1, 1), dtype=self.dtype)
        self.mean = self.variable("latent", "mean", jnp.zeros, (self.channels,))
        self.std = self.variable("latent", "std", jnp.ones, (self.channels,))

    def encode(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b i j m"]:
        """Return the means, then the logarithms of the variances, which lie in [-30, 20]."""
        del train  # nothing here differs
        b, h, w, c = image.shape
        if h % self.factor or w % self.factor:
            raise UserError(
                f"autoencoder_kl: {h}×{w} does not divide into the {self.factor}×{self.factor} pixels that are one "
                "place of a latent; resize, crop or pad the image"
            )
        p = self.patch
        cells = image.reshape(b, h // p, p, w // p, p, c).swapaxes(2, 3).reshape(b, h // p, w // p, p * p * c)
        moments = self.down(cells)
        if self.mixed:
            moments = self.quant(moments)
        mean, log_variance = jnp.split(moments.astype(jnp.float32), 2, axis=-1)
        return jnp.concatenate([mean, jnp.clip(log_variance, -30.0, 20.0)], axis=-1)

    def decode(self, latent: Float[Array, "b i j k"], *, train: bool) -> Float[Array, "b h w c"]:
        """Return the images of latents, in [-1, 1] but for overshoot."""
        del train
        cells = self.up(self.post_quant(latent) if self.mixed else latent).astype(jnp.float32)
        (b, h, w, _), p, c = cells.shape, self.patch, self.image_channels
        return cells.reshape(b, h, w, p, p, c).swapaxes(2, 3).reshape(b, h * p, w * p, c)

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w o"]:
        """Return the images of the means, of `image_channels`."""
        return self.decode(self.encode(image, train=train)[..., : self.channels], train=train)
