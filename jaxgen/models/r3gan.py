"""R3GAN's generator and discriminator: grouped residual nets without normalisation (arXiv:2501.05441, section 4)."""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.errors import UserError
from jaxgen.nn.conditioning import ClassEmbed, label_weights
from jaxgen.nn.grouped import GroupedConv
from jaxgen.nn.lowest import lowest_map
from jaxgen.nn.upfirdn import blur_kernel, downsample2d, upsample2d
from jaxgen.parallel.rules import ByPath, Replicated, Split
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]

R3GAN = ByPath(
    (
        (r"/block\d+_\d+/(widen|conv)/(kernel|bias)$", Split(-1)),
        (r"/block\d+_\d+/narrow/kernel$", Split(-2)),
        ("", Replicated()),
    )
)
"""Tensor parallelism: devices share the hidden channels of each block, and so the groups of its grouped convolution."""

_leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)
_linear = nn.initializers.variance_scaling(1.0, "fan_in", "normal")  # for layers that no activation follows
_dense = functools.partial(nn.Dense, use_bias=False, kernel_init=_linear)


class ResidualBlock(nn.Module):
    """Inverted bottleneck around a grouped convolution: it begins as the identity."""

    depth: int
    """Residual blocks of the whole net; the more, the smaller each one's first layers."""
    expansion: int
    group_width: int
    dtype: Precision

    @nn.compact
    def __call__(self, x: Map) -> Map:
        channels = x.shape[-1]
        # Fix-up initialisation (arXiv:1901.09321, section 3.2): the last layer is 0, and the m - 1 = 2 others are
        # scaled by depth^(-1 / (2m - 2)), so that one step changes the net's output by as much as in a shallow net.
        start = nn.initializers.variance_scaling(2 / (1 + 0.2**2) / math.sqrt(self.depth), "fan_in", "normal")
        y = nn.Dense(self.expansion * channels, kernel_init=start, dtype=self.dtype, name="widen")(x)
        y = GroupedConv(self.group_width, kernel_init=start, dtype=self.dtype, name="conv")(_leaky(y))
        zeros = nn.initializers.zeros
        return x + _dense(channels, kernel_init=zeros, dtype=self.dtype, name="narrow")(_leaky(y))


class R3ganGenerator(nn.Module):
    """Map z f32[b latent], standard normal, to images f32[b h w channels].

    Height and width are 2^(len(widths) - 1) times those of `lowest`. A learned map of that size, each channel of it
    scaled by a linear function of z and the class' vector, runs through residual blocks and is enlarged by the filter
    [1, 3, 3, 1] between resolutions. Images are of order one and not bounded. `truncation` scales z; `noise` is not
    used. Raises UserError unless the condition fits `classes`, where `widths` is empty, and where they do not divide
    into groups.
    """

    latent: int = 64
    """Length of z."""
    classes: int = 0
    """Number of classes; 0 for a net that takes no label."""
    channels: int = 3
    """Channels of the image."""
    widths: tuple[int, ...] = (768, 768, 768, 768)
    """Channels at each resolution, that of 4×4 first; each doubles the side of the one before."""
    lowest: tuple[int, int] = (4, 4)
    """Height and width of the first map, from which the image grows by doubling: (6, 4) for 96×64, for example."""
    blocks: int = 2
    """Residual blocks at each resolution."""
    expansion: int = 2
    """Channels within a block, in units of those outside."""
    group_width: int = 16
    """Channels in a group of the 3×3 convolutions; the paper's cardinality is expansion · width / group_width."""
    embedding: int = 64
    """Length of a class' vector."""
    full_precision_stages: int = 1
    """Number of lowest resolutions that compute in float32 for every `dtype`."""
    dtype: Precision = "float32"
    """Type that the other resolutions compute in; parameters, embeddings and the output are float32."""

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
        del noise, train  # z is all that is random here, in training too
        label = label_weights(condition, self.classes)
        _check_widths(self.widths)
        style = z * truncation
        if label is not None:
            start = nn.initializers.normal(self.classes**-0.5)
            style = jnp.concatenate(
                [style, ClassEmbed(self.classes, self.embedding, start, name="label")(label)], axis=1
            )
        basis = self.param("basis", nn.initializers.normal(1.0), (*self.lowest, self.widths[0]))
        x = _dense(self.widths[0], name="style")(style)[:, None, None] * basis[None]
        for stage, width in enumerate(self.widths):
            dtype: Precision = "float32" if stage < self.full_precision_stages else self.dtype
            x = x.astype(dtype)
            if stage:
                if width != x.shape[-1]:
                    x = _dense(width, dtype=dtype, name=f"project{stage}")(x)
                x = upsample2d(x, blur_kernel())
            for i in range(self.blocks):
                x = _block(self, stage, i, dtype)(x)
        return _dense(self.channels, name="out")(x.astype(jnp.float32))


class R3ganDiscriminator(nn.Module):
    """Map images f32[b h w c] to logits f32[b], higher where more real.

    The generator's layers in reverse, down to a shorter side of 4..7; there each channel is summed up with learned
    weights. The class enters by projection, as the scalar product of its vector and the net's (arXiv:1802.05637). No
    layer mixes examples. Raises UserError unless the condition fits `classes` and the image the widths.
    """

    classes: int = 0
    """Number of classes; 0 for a net that takes no label."""
    widths: tuple[int, ...] = (768, 768, 768, 768)
    """Channels at each resolution, that of 4×4 first, as the generator counts them."""
    blocks: int = 2
    """Residual blocks at each resolution."""
    expansion: int = 2
    """Channels within a block, in units of those outside."""
    group_width: int = 16
    """Channels in a group of the 3×3 convolutions."""
    embedding: int = 768
    """Length of a class' vector, and of the image's features that it is multiplied with."""
    full_precision_stages: int = 1
    """Number of lowest resolutions that compute in float32 for every `dtype`."""
    dtype: Precision = "float32"
    """Type that the other resolutions compute in; parameters, embeddings and the output are float32."""

    @nn.compact
    def __call__(self, image: Float[Array, "b *s"], condition: Condition, *, train: bool) -> Float[Array, " b"]:
        del train  # nothing here differs
        label = label_weights(condition, self.classes)
        _check_widths(self.widths)
        _check_side(image.shape[1:], len(self.widths))
        x = image
        for stage, width in reversed(list(enumerate(self.widths))):
            dtype: Precision = "float32" if stage < self.full_precision_stages else self.dtype
            x = x.astype(dtype)
            if stage == len(self.widths) - 1:
                x = _dense(width, dtype=dtype, name="in")(x)
            for i in range(self.blocks):
                x = _block(self, stage, i, dtype)(x)
            if stage:
                x = downsample2d(x, blur_kernel())
                if self.widths[stage - 1] != width:
                    x = _dense(self.widths[stage - 1], dtype=dtype, name=f"project{stage}")(x)
        basis = self.param("basis", nn.initializers.normal(1 / 4), (*x.shape[1:3], self.widths[0]))
        x = jnp.einsum("bhwc,hwc->bc", x.astype(jnp.float32), basis)
        if label is None:
            return _dense(1, name="out")(x)[:, 0]
        start = nn.initializers.normal((self.classes * self.embedding) ** -0.5)
        vector = ClassEmbed(self.classes, self.embedding, start, name="label")(label)
        return (_dense(self.embedding, name="out")(x) * vector).sum(1)


def _block(net: R3ganGenerator | R3ganDiscriminator, stage: int, i: int, dtype: Precision) -> ResidualBlock:
    depth = net.blocks * len(net.widths)
    return ResidualBlock(depth, net.expansion, net.group_width, dtype, name=f"block{stage}_{i}")


def _check_widths(widths: tuple[int, ...]) -> None:
    if not widths:
        raise UserError("r3gan: widths is empty; give one number for each resolution from 4×4 up, such as (64, 64)")


def _check_side(shape: tuple[int, ...], stages: int) -> None:
    if len(shape) == 3 and lowest_map(*shape[:2], "r3gan")[0] == stages - 1:
        return
    side = 4 * 2 ** (stages - 1)
    raise UserError(
        f"r3gan: {stages} widths are for images of {side}×{side}, and these are {'×'.join(map(str, shape))}; "
        f"resize them, or give `widths` one number for each of 4×4, 8×8, … up to the image's side"
    )
