"""The residual GAN of spectral normalisation (arXiv:1802.05957, appendix B.4), with a projection discriminator and
class-conditional batch normalisation where there are classes (arXiv:1802.05637)."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.errors import UserError
from jaxgen.nn import resample
from jaxgen.nn.conditioning import ClassEmbed, label_weights
from jaxgen.nn.norm import batch_norm
from jaxgen.nn.spectral import spectral
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]

# Kernels by Xavier's rule, with a gain of √2 before ReLUs in blocks, as in the authors' code.
_start = nn.initializers.xavier_uniform()
_start_block = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")


class ClassBatchNorm(nn.Module):
    """Batch normalisation; where there are classes, each has a scale and a shift of its own (arXiv:1610.07629)."""

    classes: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map, label: Float[Array, "b n"] | None, train: bool) -> Map:
        if label is None:
            return batch_norm(x, train, dtype=self.dtype, name="norm")
        norm = nn.BatchNorm(
            use_running_average=not train, momentum=0.9, epsilon=1e-5, use_scale=False, use_bias=False, name="norm"
        )
        table = functools.partial(ClassEmbed, self.classes, x.shape[-1])
        scale = table(embedding_init=nn.initializers.ones, name="scale")(label)[:, None, None]
        shift = table(embedding_init=nn.initializers.zeros, name="shift")(label)[:, None, None]
        return (norm(x) * scale + shift).astype(self.dtype)


class UpBlock(nn.Module):
    """Residual block of the generator: twice the side."""

    width: int
    classes: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map, label: Float[Array, "b n"] | None, train: bool) -> Map:
        # No biases: each would only shift a channel, up to the next norm, which removes every such shift.
        conv = functools.partial(nn.Conv, self.width, use_bias=False, dtype=self.dtype)
        norm = functools.partial(ClassBatchNorm, self.classes, self.dtype)
        y = resample.double(nn.relu(norm(name="norm0")(x, label, train)))
        y = conv((3, 3), kernel_init=_start_block, name="conv0")(y)
        y = nn.relu(norm(name="norm1")(y, label, train))
        y = conv((3, 3), kernel_init=_start_block, name="conv1")(y)
        # Repeating cells and a 1×1 convolution commute; before it there are fewer cells to convolve.
        return y + resample.double(conv((1, 1), kernel_init=_start, name="skip")(x))


class FirstBlock(nn.Module):
    """The discriminator's first residual block: half the side, and no activation on the image itself."""

    width: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        conv = functools.partial(nn.Conv, self.width, dtype=self.dtype)
        y = spectral(conv((3, 3), kernel_init=_start_block, name="conv0"), x, train=train)
        y = spectral(conv((3, 3), kernel_init=_start_block, name="conv1"), nn.relu(y), train=train)
        skip = spectral(conv((1, 1), kernel_init=_start, name="skip"), resample.halve(x), train=train)
        return resample.halve(y) + skip


class Block(nn.Module):
    """Residual block of the discriminator; one that keeps the map's size has no weights in its skip."""

    width: int
    resample: Callable[[Map], Map] = resample.keep
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        conv = functools.partial(nn.Conv, self.width, dtype=self.dtype)
        y = spectral(conv((3, 3), kernel_init=_start_block, name="conv0"), nn.relu(x), train=train)
        y = spectral(conv((3, 3), kernel_init=_start_block, name="conv1"), nn.relu(y), train=train)
        if self.resample is not resample.keep:
            # Averaging cells and a 1×1 convolution commute.
            x = spectral(conv((1, 1), kernel_init=_start, name="skip"), self.resample(x), train=train)
        return self.resample(y) + x


class SnganGenerator(nn.Module):
    """Map z f32[b latent], standard normal, to images f32[b h w channels] in [-1, 1].

    Height and width are 2^stages times those of `lowest`. Raises UserError unless the condition fits `classes`.
    """

    latent: int = 128
    """Length of z."""
    classes: int = 0
    """Classes, which enter by conditional batch normalisation; 0 for none."""
    channels: int = 3
    """Channels of the image."""
    width: int = 256
    """Channels of every map."""
    stages: int = 3
    """Residual blocks, each of which doubles the side."""
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
        x = nn.Dense(math.prod(self.lowest) * self.width, kernel_init=_start, dtype=self.dtype, name="in")(
            z * truncation
        )
        x = x.reshape(-1, *self.lowest, self.width)
        for i in range(self.stages):
            x = UpBlock(self.width, self.classes, self.dtype, name=f"block{i}")(x, label, train)
        x = nn.relu(batch_norm(x, train, dtype=self.dtype, name="norm")).astype(jnp.float32)
        return jnp.tanh(nn.Conv(self.channels, (3, 3), kernel_init=_start, name="out")(x))


class SnganDiscriminator(nn.Module):
    """Map images f32[b h w c] in [-1, 1] to logits f32[b]: higher is more real.

    All weights are spectrally normalised, the table of classes too. Raises UserError unless height and width can be
    halved as often as asked and the condition fits `classes`.
    """

    classes: int = 0
    """Classes, which enter by projection (arXiv:1802.05637, equation 3); 0 for none."""
    width: int = 128
    """Channels of every map."""
    blocks: int = 4
    """Residual blocks."""
    halvings: int = 2
    """How many of the blocks, the first ones, halve the side; at least 1."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and logits are float32."""

    @nn.compact
    def __call__(self, image: Float[Array, "b *s"], condition: Condition, *, train: bool) -> Float[Array, " b"]:
        label = label_weights(condition, self.classes)
        self._check_size(image.shape[1:])
        x = FirstBlock(self.width, self.dtype, name="block0")(image, train)
        for i in range(1, self.blocks):
            sampling = resample.halve if i < self.halvings else resample.keep
            x = Block(self.width, sampling, self.dtype, name=f"block{i}")(x, train)
        x = nn.relu(x).astype(jnp.float32).sum((1, 2))
        logit = spectral(nn.Dense(1, kernel_init=_start, name="out"), x, train=train)[:, 0]
        if label is not None:
            table = ClassEmbed(self.classes, self.width, _start, name="label")
            logit += (spectral(table, label, train=train) * x).sum(1)
        return logit

    def _check_size(self, shape: tuple[int, ...]) -> None:
        if not 1 <= self.halvings <= self.blocks:
            raise UserError(
                f"sngan discriminator: halvings is {self.halvings}; it must be 1..{self.blocks}, its blocks"
            )
        multiple = 2**self.halvings
        if len(shape) != 3 or shape[0] % multiple or shape[1] % multiple:
            raise UserError(
                f"sngan discriminator: images of {'×'.join(map(str, shape[:2]))} cannot be halved {self.halvings} "
                f"times; resize them to multiples of {multiple}, or set fewer `halvings`"
            )
