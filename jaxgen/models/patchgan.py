"""PatchGAN, the discriminator of pix2pix (arXiv:1611.07004, appendix 6.1.2): a logit for each patch of an image."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.norm import batch_norm, instance_norm
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]

_start = nn.initializers.normal(0.02)  # of every kernel


def _near_one(key: PRNGKeyArray, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
    """Draw batch norm's scales, as the authors' code does."""
    return 1.0 + 0.02 * jax.random.normal(key, shape, dtype)


@runtime_checkable
class Norm(Protocol):
    """How the hidden maps are normalised; called inside a compact method."""

    def biased(self) -> bool:
        """Whether the convolutions before it need biases of their own."""
        ...

    def __call__(self, x: Map, *, train: bool, dtype: Precision, name: str) -> Map: ...


@dataclasses.dataclass(frozen=True)
class Batch:
    """Batch normalisation (arXiv:1502.03167), as in pix2pix and latent diffusion; gradient penalties refuse it."""

    def biased(self) -> bool:
        return False

    def __call__(self, x: Map, *, train: bool, dtype: Precision, name: str) -> Map:
        return batch_norm(x, train, dtype=dtype, scale_init=_near_one, name=name)


@dataclasses.dataclass(frozen=True)
class Instance:
    """Each channel of each image normalised by itself (arXiv:1607.08022), without a scale, as in CycleGAN."""

    def biased(self) -> bool:
        return True

    def __call__(self, x: Map, *, train: bool, dtype: Precision, name: str) -> Map:
        del train, name
        return instance_norm(x, dtype)


@dataclasses.dataclass(frozen=True)
class Group:
    """Groups of channels of each image normalised together (arXiv:1803.08494)."""

    groups: int = 32

    def biased(self) -> bool:
        return False

    def __call__(self, x: Map, *, train: bool, dtype: Precision, name: str) -> Map:
        del train
        return GroupNorm(self.groups, dtype=dtype, name=name)(x)


class PatchGan(nn.Module):
    """Map images f32[b h w c] in [-1, 1] to logits f32[b i j], one for each 70×70 patch with three halvings.

    Each convolution is 4×4. Raises UserError for an image too small to leave a patch.
    """

    width: int = 64
    """Channels of the first map; each further one has twice as many, up to eight times this."""
    halvings: int = 3
    """Convolutions of stride 2; two of stride 1 follow. A patch has a side of 16, 34, 70, 142 for 1, 2, 3, 4."""
    norm: Norm = Batch()
    """Of all maps but the first and the last."""
    dtype: Precision = "float32"
    classes: int = 0
    """It takes no label."""

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], condition: Condition, *, train: bool) -> Float[Array, "b i j"]:
        del condition
        self._check(*image.shape[1:3])
        x = image.astype(self.dtype)
        for i in range(self.halvings + 1):
            first = i == 0
            x = nn.Conv(
                self.width * 2 ** min(i, 3),
                (4, 4),
                strides=1 if i == self.halvings else 2,
                padding=1,
                use_bias=first or self.norm.biased(),
                kernel_init=_start,
                dtype=self.dtype,
                name=f"conv{i}",
            )(x)
            if not first:
                x = self.norm(x, train=train, dtype=self.dtype, name=f"norm{i}")
            x = nn.leaky_relu(x, 0.2)
        x = nn.Conv(1, (4, 4), padding=1, kernel_init=_start, name="score")(x.astype(jnp.float32))
        return x[..., 0]

    def _check(self, height: int, width: int) -> None:
        least = 3 * 2**self.halvings  # what the two convolutions of stride 1 make one cell of
        if self.halvings < 1 or min(height, width) < least:
            raise UserError(
                f"patchgan: {self.halvings} halvings need images of {least}×{least} at least, not {height}×{width}; "
                "set fewer halvings"
            )
