"""Mixing each example with its partner in the reversed batch: pure functions of (key, images), on the device.

Each returns the mixed images and the share of the image itself: a label becomes share·y + (1 - share)·y'.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import check_field


@runtime_checkable
class Mixing(Protocol):
    """Mix images f32[b h w c]."""

    def mix(
        self, key: PRNGKeyArray, image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, ""]]: ...


@dataclasses.dataclass(frozen=True)
class NoMixing:
    """No example is changed."""

    def mix(
        self, key: PRNGKeyArray, image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, ""]]:
        return image, jnp.ones(())


@dataclasses.dataclass(frozen=True)
class Mixup:
    """λ·x + (1 - λ)·x' with λ ~ Beta(α, α), one for the batch (arXiv:1710.09412)."""

    alpha: float = 0.2
    """Of the Beta distribution, above 0; 1 draws every share alike, less keeps most images nearly as they are."""

    def __post_init__(self) -> None:
        _check_alpha(self, self.alpha)

    def mix(
        self, key: PRNGKeyArray, image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, ""]]:
        share = jax.random.beta(key, self.alpha, self.alpha)
        return share * image + (1 - share) * image[::-1], share


@dataclasses.dataclass(frozen=True)
class CutMix:
    """A rectangle of x replaced by the same rectangle of x', labels mixed by area (arXiv:1905.04899)."""

    alpha: float = 1.0
    """Of the Beta distribution, above 0; 1 draws every share alike, less keeps most images nearly as they are."""

    def __post_init__(self) -> None:
        _check_alpha(self, self.alpha)

    def mix(
        self, key: PRNGKeyArray, image: Float[Array, "b h w c"]
    ) -> tuple[Float[Array, "b h w c"], Float[Array, ""]]:
        k_share, k_row, k_column = jax.random.split(key, 3)
        _, h, w, _ = image.shape
        # Equation 2: the rectangle has the image's aspect and 1 - λ of its area, around a uniform centre.
        side = jnp.sqrt(1 - jax.random.beta(k_share, self.alpha, self.alpha))
        rows = _span(k_row, h, side)
        columns = _span(k_column, w, side)
        inside = (rows[:, None] & columns[None, :])[None, :, :, None]
        share = 1 - inside.mean()  # of the rectangle after the image's border has cut it
        return jnp.where(inside, image[::-1], image), share


def _check_alpha(mixing: Mixing, alpha: float) -> None:
    check_field(mixing, "alpha", 0 < alpha < jnp.inf, "above 0; NoMixing() mixes nothing")


def _span(key: PRNGKeyArray, length: int, side: Float[Array, ""]) -> Array:
    """Mark side·length places around a uniform centre."""
    centre = jax.random.uniform(key) * length
    place = jnp.arange(length) + 0.5
    return jnp.abs(place - centre) < side * length / 2
