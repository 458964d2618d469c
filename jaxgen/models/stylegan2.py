"""The generator of StyleGAN2 (arXiv:1912.04958) in the form of StyleGAN2-ADA (arXiv:2006.06676), with skips to RGB."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.errors import UserError
from jaxgen.nn.conditioning import label_weights
from jaxgen.nn.equalized import EqualizedDense, leaky
from jaxgen.nn.modulated import demodulation, modulated_conv
from jaxgen.nn.style import Mapping, maps
from jaxgen.nn.upfirdn import blur_kernel, upsample2d
from jaxgen.noise import normal
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b h w _"]
Twice = Float[Array, "b h2 w2 _"]  # as large as Map, or twice as high and wide


def noise_map(noise: Key[Array, " b"], layer: int, size: tuple[int, int]) -> Float[Array, "b {size[0]} {size[1]} 1"]:
    """Draw each sample's map of standard normal noise for one layer, from its own key."""
    return normal(noise, layer, (*size, 1))


class SynthesisLayer(nn.Module):
    """Modulated 3×3 convolution, noise and activation."""

    features: int
    up: int = 1
    """How many times larger the map gets in height and width."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map, style: Float[Array, "b s"], noise: Float[Array, "b h2 w2 1"]) -> Twice:
        x = x.astype(self.dtype)
        scale = EqualizedDense(x.shape[-1], start=1.0, name="style")(style)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (3, 3, x.shape[-1], self.features))
        strength = self.param("strength", nn.initializers.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = modulated_conv(x, kernel, scale, demodulation(kernel, scale), up=self.up)
        return leaky(x + (strength * noise).astype(x.dtype) + bias.astype(x.dtype)[None, None, None])


class ToRgb(nn.Module):
    """Modulated 1×1 convolution to the image's channels, without demodulation."""

    channels: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map, style: Float[Array, "b s"]) -> Float[Array, "b h w {self.channels}"]:
        scale = EqualizedDense(x.shape[-1], start=1.0, name="style")(style) / math.sqrt(x.shape[-1])
        kernel = self.param("kernel", nn.initializers.normal(1.0), (1, 1, x.shape[-1], self.channels))
        bias = self.param("bias", nn.initializers.zeros, (self.channels,))
        x = modulated_conv(x.astype(self.dtype), kernel, scale)
        return x.astype(jnp.float32) + bias[None, None, None]


class Synthesis(nn.Module):
    """Turn the styles of all layers into images."""

    channels: int
    widths: tuple[int, ...]
    """Channels of the maps, the smallest first; each is twice as large as the one before."""
    lowest: tuple[int, int] = (4, 4)
    """Height and width of the smallest map."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, styles: Float[Array, "b l s"], noise: Key[Array, " b"]) -> Float[Array, "b h w c"]:
        layer = functools.partial(SynthesisLayer, dtype=self.dtype)
        start = self.param("start", nn.initializers.normal(1.0), (*self.lowest, self.widths[0]))
        x = jnp.broadcast_to(start[None], (len(styles), *start.shape))
        colours = []
        for level, width in enumerate(self.widths):
            side, first = 4 * 2**level, 2 * level - 1  # layers are named after the sides of a square image's maps
            size = self.lowest[0] * 2**level, self.lowest[1] * 2**level
            if level:
                x = layer(width, up=2, name=f"up{side}")(x, styles[:, first], noise_map(noise, first, size))
            x = layer(width, name=f"same{side}")(x, styles[:, first + 1], noise_map(noise, first + 1, size))
            # The next map's first layer gets the same style as this map's colours.
            colours.append(ToRgb(self.channels, self.dtype, name=f"rgb{side}")(x, styles[:, first + 2]))
        return functools.reduce(lambda image, more: upsample2d(image, blur_kernel()) + more, colours)


class StyleGan2Generator(nn.Module):
    """Map z f32[b latent], standard normal, and a key for each sample's noise to images f32[b h w channels].

    Not trained: "moving" holds the mean style, which moves if train is True. Random stream in training: "mixing".
    Raises UserError unless halving the image leads to a shorter side of 4..7 pixels, z has `latent` columns and the
    condition fits `classes`.
    """

    latent: int = 512
    """Length of z."""
    classes: int = 0
    """Number of classes; 0 for none."""
    channels: int = 3
    side: int = 256
    """Height of an image, and its width where `image_width` is None; 4 times a power of two in the reference."""
    image_width: int | None = None
    """Width of an image that is not square."""
    style_size: int = 512
    """Length of a style (w)."""
    mapping_layers: int = 8
    base: int = 32_768
    """Channels of a map times its side, as long as they are at most `widest`."""
    widest: int = 512
    """Most channels of a map."""
    mixing: float = 0.9
    """Probability that a sample in training takes its later layers' styles from another z, from a random layer on.
    Each sample draws for itself; the reference draws once for the batch."""
    decay: float = 0.995
    """How much of the mean style remains after a batch."""
    dtype: Precision = "float32"
    """Type that the convolutions compute in; parameters, styles, colours and the output are float32."""

    def setup(self) -> None:
        sides, lowest = maps(self.side, self.side if self.image_width is None else self.image_width)
        widths = tuple(min(self.base // side, self.widest) for side in sides)
        self.layers = 2 * len(widths)
        self.mapping = Mapping(self.mapping_layers, self.style_size, self.classes)
        self.synthesis = Synthesis(self.channels, widths, lowest, self.dtype)
        self.mean = self.variable("moving", "style", jnp.zeros, (self.style_size,))

    def __call__(
        self,
        z: Float[Array, "b z"],
        condition: Condition,
        noise: Key[Array, " b"],
        *,
        train: bool,
        truncation: float = 1.0,
    ) -> Float[Array, "b h w c"]:
        return self.synthesize(self.styles(z, condition, train=train, truncation=truncation), noise, train=train)

    def styles(
        self, z: Float[Array, "b z"], condition: Condition, *, train: bool, truncation: float = 1.0
    ) -> Float[Array, "b l {self.style_size}"]:
        """Return the style of each layer; `truncation` 1 leaves it, and 0 puts the mean style in its place."""
        label = label_weights(condition, self.classes)
        if z.shape[1] != self.latent:
            raise UserError(f"stylegan2: z has {z.shape[1]} columns; the net's latent is {self.latent}")
        style = self.mapping(z, label)
        if train and not self.is_initializing():
            now = jax.lax.stop_gradient(style.mean(0))
            self.mean.value = now + self.decay * (self.mean.value - now)
        styles = jnp.broadcast_to(style[:, None], (len(z), self.layers, self.style_size))
        if train and self.mixing > 0 and not self.is_initializing():
            styles = self._mixed(styles, label)
        if truncation != 1.0:
            mean = self.mean.value[None, None]
            styles = mean + truncation * (styles - mean)
        return styles

    def _mixed(self, styles: Float[Array, "b l s"], label: Float[Array, "b n"] | None) -> Float[Array, "b l s"]:
        keys = jax.random.split(self.make_rng("mixing"), 3)
        b = len(styles)
        other = self.mapping(jax.random.normal(keys[0], (b, self.latent)), label)
        first = jax.random.randint(keys[1], (b, 1, 1), 1, self.layers)
        mixed = jax.random.bernoulli(keys[2], self.mixing, (b, 1, 1))
        late = jnp.arange(self.layers)[None, :, None] >= jnp.broadcast_to(first, (b, self.layers, 1))
        return jnp.where(late & mixed, other[:, None], styles)

    def synthesize(
        self, styles: Float[Array, "b l s"], noise: Key[Array, " b"], *, train: bool
    ) -> Float[Array, "b h w c"]:
        """Turn the styles of all layers into images, whose pixels are about in [-1, 1]."""
        del train  # nothing here differs
        return self.synthesis(styles, noise)
