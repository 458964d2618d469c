"""DCGAN (arXiv:1511.06434): a generator of transposed convolutions against a classifier of strided ones."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.nn.conditioning import ClassEmbed, label_weights
from jaxgen.nn.lowest import lowest_map
from jaxgen.nn.norm import batch_norm
from jaxgen.nn.spectral import spectral
from jaxgen.nn.upsample import transposed_convolution
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]

_start = nn.initializers.normal(0.02)  # of every kernel (section 4)


def _near_one(key: PRNGKeyArray, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Draw batch norm's scales: the paper does not say how, its authors' code does."""
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


@runtime_checkable
class Norm(Protocol):
    """How a discriminator is normalised: by its weights, by its maps, or not at all."""

    def biased(self) -> bool:
        """Whether layers need biases of their own."""
        ...

    def layer(self, layer: nn.Module, x: Float[Array, "b *s"], train: bool) -> Float[Array, "b *t"]:
        """Apply a layer; all of them pass here."""
        ...

    def hidden(self, x: Map, train: bool, dtype: Precision, name: str) -> Map:
        """Normalise a layer's output; the first and the last layer's do not pass here."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """Batch normalisation (arXiv:1502.03167), as in the paper; gradient penalties refuse it: it mixes examples."""

    def biased(self) -> bool:
        return False

    def layer(self, layer: nn.Module, x: Float[Array, "b *s"], train: bool) -> Float[Array, "b *t"]:
        del train
        return layer(x)

    def hidden(self, x: Map, train: bool, dtype: Precision, name: str) -> Map:
        return batch_norm(x, train, dtype=dtype, scale_init=_near_one, name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoNorm:
    """No normalisation."""

    def biased(self) -> bool:
        return True

    def layer(self, layer: nn.Module, x: Float[Array, "b *s"], train: bool) -> Float[Array, "b *t"]:
        del train
        return layer(x)

    def hidden(self, x: Map, train: bool, dtype: Precision, name: str) -> Map:
        del train, dtype, name
        return x


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpectralNorm:
    """Spectral normalisation of every layer (arXiv:1802.05957)."""

    def biased(self) -> bool:
        return True

    def layer(self, layer: nn.Module, x: Float[Array, "b *s"], train: bool) -> Float[Array, "b *t"]:
        return spectral(layer, x, train=train)

    def hidden(self, x: Map, train: bool, dtype: Precision, name: str) -> Map:
        del train, dtype, name
        return x


class Upconvolution(nn.Module):
    """A transposed convolution that doubles the side: kernel 4 × 4, stride 2, padding 1, no bias."""

    features: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map) -> Map:
        kernel = self.param("kernel", _start, (4, 4, x.shape[-1], self.features))
        return transposed_convolution(x.astype(self.dtype), kernel.astype(self.dtype))[:, 1:-1, 1:-1]


class DcganGenerator(nn.Module):
    """Map z f32[b latent], standard normal, to images f32[b h w channels] in [-1, 1].

    Height and width are 2^n times those of `lowest` for n widths. Raises UserError unless the condition fits `classes`.
    """

    latent: int = 100
    """Length of z."""
    classes: int = 0
    """Classes, whose weights are appended to z; 0 for none."""
    channels: int = 3
    """Channels of the image."""
    widths: tuple[int, ...] = (512, 256, 128, 64)
    """Channels of the maps of side 4, 8, 16, …; the image is twice as large as the last."""
    lowest: tuple[int, int] = (4, 4)
    """Height and width of the first map, from which the image grows by doubling: (6, 4) for 96×64, for example."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and images are float32."""

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "b z"],
        condition: Condition,
        noise: Key[Array, " b"],
        *,
        train: bool,
        truncation: float = 1.0,
    ) -> Float[Array, "b h w c"]:
        """`truncation` scales z; `noise` is not used."""
        del noise
        label = label_weights(condition, self.classes)
        if not self.widths:
            raise UserError("dcgan generator: widths is empty; give one for 8×8 images, two for 16×16, and so on")
        x = z * truncation
        if label is not None:
            x = jnp.concatenate([x, label[:, :-1]], axis=1)
        first, *others = self.widths
        x = nn.Dense(math.prod(self.lowest) * first, use_bias=False, kernel_init=_start, dtype=self.dtype, name="in")(x)
        x = self._active(x.reshape(-1, *self.lowest, first), train, 0)
        for i, width in enumerate(others, start=1):
            x = self._active(Upconvolution(width, self.dtype, name=f"up{i}")(x), train, i)
        return jnp.tanh(Upconvolution(self.channels, name="out")(x.astype(jnp.float32)))

    def _active(self, x: Map, train: bool, number: int) -> Map:
        return nn.relu(batch_norm(x, train, dtype=self.dtype, scale_init=_near_one, name=f"norm{number}"))


class DcganDiscriminator(nn.Module):
    """Map images f32[b h w c] in [-1, 1] to logits f32[b]: higher is more real.

    Raises UserError unless n widths halve the shorter side to 4..7 pixels, as they do a square of 4·2^n, and the
    condition fits `classes`.
    """

    classes: int = 0
    """Classes, which enter by projection (arXiv:1802.05637, equation 3); 0 for none."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of the maps, each half as large as the one before; the last has a shorter side of 4..7."""
    norm: Norm = BatchNorm()
    """BatchNorm(), NoNorm() or SpectralNorm()."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and logits are float32."""

    @nn.compact
    def __call__(self, image: Float[Array, "b *s"], condition: Condition, *, train: bool) -> Float[Array, " b"]:
        label = label_weights(condition, self.classes)
        self._check_size(image.shape[1:])
        biased, x = self.norm.biased(), image
        for i, width in enumerate(self.widths):
            conv = functools.partial(nn.Conv, width, (4, 4), strides=2, padding=1, kernel_init=_start, use_bias=biased)
            x = self.norm.layer(conv(dtype=self.dtype, name=f"down{i}"), x, train)
            if i:
                x = self.norm.hidden(x, train, self.dtype, f"norm{i}")
            x = nn.leaky_relu(x, 0.2)
        x = x.astype(jnp.float32)
        out = nn.Dense(1, use_bias=biased, kernel_init=_start, name="out")
        logit = self.norm.layer(out, x.reshape(len(x), -1), train)[:, 0]
        if label is not None:
            table = ClassEmbed(self.classes, x.shape[-1], _start, name="label")
            logit += (self.norm.layer(table, label, train) * x.sum((1, 2))).sum(1)
        return logit

    def _check_size(self, shape: tuple[int, ...]) -> None:
        if len(shape) == 3 and self.widths:
            halvings, _ = lowest_map(*shape[:2], "dcgan discriminator")
            if halvings == len(self.widths):
                return
            remedy = f", which take {halvings}" if halvings else "; resize them to 8, 16, 32, 64, …"
        else:
            remedy = "; resize them to 8, 16, 32, 64, …"
        side = 4 * 2 ** len(self.widths)
        raise UserError(
            f"dcgan discriminator: {len(self.widths)} widths are for images of {side}×{side}, "
            f"not {'×'.join(map(str, shape[:2]))}{remedy}"
        )
