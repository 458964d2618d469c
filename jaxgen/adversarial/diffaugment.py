"""DiffAugment: brightness, saturation, contrast, translation and cutout for the discriminator (arXiv:2006.10738)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgen.adversarial.augmentation import Fixed, Probability, check_images


class Draws(NamedTuple):
    """What happens to each image; an operation that leaves it alone has a neutral value."""

    brightness: Float[Array, " b"]  # added
    saturation: Float[Array, " b"]  # factor of each pixel's distance from its grey
    contrast: Float[Array, " b"]  # factor of each value's distance from the image's mean
    shift: Int[Array, "b 2"]  # pixels (down, right)
    hole: Int[Array, "b 2"]  # first (row, column) of the square that is cut out


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffAugment:
    """The paper's three policies, colour, translation and cutout; a strength of 0 turns an operation off."""

    p: Probability = Fixed()
    """How often each operation is applied to an image."""
    brightness: float = 0.5
    """Largest change of brightness, where images are in [-1, 1]."""
    saturation: float = 1.0
    """Largest change of the saturation's factor from 1; grey images have none."""
    contrast: float = 0.5
    """Largest change of the contrast's factor from 1."""
    translation: float = 0.125
    """Largest shift, as a share of the side; zeros come in."""
    cutout: float = 0.5
    """Side of the rectangle of zeros, as a share of the image's."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError for points."""
        check_images(self, shape)

    def __call__(
        self, images: Float[Array, "b h w c"], key: PRNGKeyArray, p: Float[Array, ""]
    ) -> Float[Array, "b h w c"]:
        b, height, width, _ = images.shape
        return self.apply(images, self.draw(key, b, height, width, p))

    def draw(self, key: PRNGKeyArray, n: int, height: int, width: int, p: Float[Array, ""]) -> Draws:
        """Draw what happens to n images of this size, each operation with probability p."""
        k_on, k_colour, k_shift, k_hole = jax.random.split(key, 4)
        on = iter(jax.random.uniform(k_on, (5, n)) < p)
        colour = iter(jax.random.uniform(k_colour, (3, n), minval=-1.0, maxval=1.0))
        brightness = jnp.where(next(on), self.brightness * next(colour), 0.0)
        saturation = jnp.where(next(on), 1.0 + self.saturation * next(colour), 1.0)
        contrast = jnp.where(next(on), 1.0 + self.contrast * next(colour), 1.0)
        reach = jnp.array(_pixels(self.translation, height, width))[None]
        shift = jnp.where(next(on)[:, None], jax.random.randint(k_shift, (n, 2), -reach, reach + 1), 0)
        # The hole's middle lies anywhere in the image, also on its edges; so part of it may lie outside.
        size, sides = jnp.array(_pixels(self.cutout, height, width))[None], jnp.array([[height, width]])
        first = jax.random.randint(k_hole, (n, 2), 0, sides + 1 - size % 2) - size // 2
        hole = jnp.where(next(on)[:, None], first, max(height, width))  # beyond the image
        return Draws(brightness, saturation, contrast, shift, hole)

    def apply(self, images: Float[Array, "b h w c"], draws: Draws) -> Float[Array, "b h w c"]:
        """Do to each image what was drawn for it."""
        b, height, width, _ = images.shape
        add, saturation, contrast = (
            x.reshape(b, 1, 1, 1) for x in (draws.brightness, draws.saturation, draws.contrast)
        )
        x = images + add
        grey = x.mean(3, keepdims=True)
        x = grey + saturation * (x - grey)
        mean = x.mean((1, 2, 3), keepdims=True)
        x = mean + contrast * (x - mean)
        x = _shifted(x, draws.shift)
        sides = _pixels(self.cutout, height, width)
        rows, columns = (
            (jnp.arange(size)[None] >= first) & (jnp.arange(size)[None] < first + side)
            for size, side, first in zip((height, width), sides, jnp.split(draws.hole, 2, axis=1), strict=True)
        )
        return jnp.where((rows[:, :, None] & columns[:, None])[..., None], 0.0, x)


def _pixels(share: float, height: int, width: int) -> tuple[int, int]:
    """Return this share of both sides, rounded, halves up."""
    return int(share * height + 0.5), int(share * width + 0.5)


def _shifted(x: Float[Array, "b h w c"], shift: Int[Array, "b 2"]) -> Float[Array, "b h w c"]:
    """Move each image by whole pixels (down, right); zeros come in."""
    for axis in (1, 2):
        shape = [len(x), 1, 1, 1]
        shape[axis] = x.shape[axis]
        source = (jnp.arange(x.shape[axis])[None] - shift[:, axis - 1 : axis]).reshape(shape)
        inside = (source >= 0) & (source < x.shape[axis])
        x = jnp.where(inside, jnp.take_along_axis(x, source.clip(0, x.shape[axis] - 1), axis), 0.0)
    return x
