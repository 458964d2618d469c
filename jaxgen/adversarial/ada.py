"""The augmentation pipeline of adaptive discriminator augmentation (arXiv:2006.06676, appendix B)."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.adversarial import warp
from jaxgen.adversarial.augmentation import Adaptive, Probability, check_images
from jaxgen.errors import UserError


class Draws(NamedTuple):
    """What happens to each image, in this order; an operation that leaves it alone has a neutral value."""

    xflip: Float[Array, " b"]  # 1 to swap left and right, or 0
    rotate90: Float[Array, " b"]  # quarter turns to the left, 0 to 3
    xint: Float[Array, "b 2"]  # whole pixels (right, down)
    scale: Float[Array, " b"]  # factor of the size
    rotate: Float[Array, " b"]  # angle to the left, in radians
    aniso: Float[Array, " b"]  # factor of the width, and divisor of the height
    rotate_after: Float[Array, " b"]  # angle to the left, in radians
    xfrac: Float[Array, "b 2"]  # pixels (right, down)
    brightness: Float[Array, " b"]  # added
    contrast: Float[Array, " b"]  # factor
    lumaflip: Float[Array, " b"]  # 1 to change the sign of the grey part, or 0
    hue: Float[Array, " b"]  # angle, in radians
    saturation: Float[Array, " b"]  # factor of the distance from grey
    cutout: Float[Array, "b 3"]  # middle (x, y) and side of the rectangle that is cut out, as shares of the image's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ada:
    """Pixel blitting, geometric and colour transforms, the paper's "bgc", and cutout, which R3GAN adds.

    Each operation is applied to each image with probability p times the factor of its name below; 0 turns it off.
    Without the four operations that fall between pixels (scale, rotate, aniso, xfrac) images are not resampled.
    """

    p: Probability = Adaptive()
    xflip: float = 1.0
    rotate90: float = 1.0
    """Rotation by multiples of 90 degrees."""
    xint: float = 1.0
    """By whole pixels, up to 1/8 of the side."""
    scale: float = 1.0
    """By 2^N(0, 0.2²)."""
    rotate: float = 1.0
    """By any angle, before or after aniso."""
    aniso: float = 1.0
    """Width by 2^N(0, 0.2²), height by its inverse."""
    xfrac: float = 1.0
    """By N(0, 1/8²) of the side."""
    brightness: float = 1.0
    """By N(0, 0.2²), where images are in [-1, 1]."""
    contrast: float = 1.0
    """By 2^N(0, 0.5²)."""
    lumaflip: float = 1.0
    """Light becomes dark, while the colour stays."""
    hue: float = 1.0
    """By any angle around grey."""
    saturation: float = 1.0
    """By 2^N(0, 1)."""
    cutout: float = 0.0
    """Rectangle of half the sides, filled with zeros."""

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError for points, and for channels that have no hue."""
        check_images(self, shape)
        if self.hue and shape[2] not in (1, 3):
            raise UserError(f"Ada rotates hues, which images of {shape[2]} channels do not have; set hue=0.0")

    def __call__(
        self, images: Float[Array, "b h w c"], key: PRNGKeyArray, p: Float[Array, ""]
    ) -> Float[Array, "b h w c"]:
        b, height, width, _ = images.shape
        return self.apply(images, self.draw(key, b, height, width, p))

    def draw(self, key: PRNGKeyArray, n: int, height: int, width: int, p: Float[Array, ""]) -> Draws:
        """Draw what happens to n images of this size."""
        k_on, k_uniform, k_normal = jax.random.split(key, 3)
        on = iter(jax.random.uniform(k_on, (14, n)))
        evens = iter(jax.random.uniform(k_uniform, (10, n)))  # few large draws compile faster than many small ones
        normals = iter(jax.random.normal(k_normal, (7, n)))
        sides = jnp.array([[width, height]], jnp.float32)

        def gated(chance: Float[Array, ""], value: Array, neutral: float) -> Array:
            return jnp.where((next(on) < chance).reshape(n, *(1,) * (value.ndim - 1)), value, neutral)

        def below(end: int) -> Float[Array, " b"]:
            return jnp.floor(end * next(evens))

        def angle() -> Float[Array, " b"]:
            return math.pi * (2.0 * next(evens) - 1.0)

        def pair(of: Iterator[Array]) -> Float[Array, "b 2"]:
            return jnp.stack([next(of), next(of)], axis=1)

        # One rotation or the other, or both, with probability rotate * p.
        either = 1.0 - jnp.sqrt(jnp.clip(1.0 - self.rotate * p, 0.0, 1.0))
        side = gated(self.cutout * p, jnp.full((n, 1), 0.5), 0.0)
        return Draws(
            xflip=gated(self.xflip * p, below(2), 0.0),
            rotate90=gated(self.rotate90 * p, below(4), 0.0),
            xint=gated(self.xint * p, jnp.round(0.125 * (2.0 * pair(evens) - 1.0) * sides), 0.0),
            scale=gated(self.scale * p, jnp.exp2(0.2 * next(normals)), 1.0),
            rotate=gated(either, angle(), 0.0),
            aniso=gated(self.aniso * p, jnp.exp2(0.2 * next(normals)), 1.0),
            rotate_after=gated(either, angle(), 0.0),
            xfrac=gated(self.xfrac * p, 0.125 * pair(normals) * sides, 0.0),
            brightness=gated(self.brightness * p, 0.2 * next(normals), 0.0),
            contrast=gated(self.contrast * p, jnp.exp2(0.5 * next(normals)), 1.0),
            lumaflip=gated(self.lumaflip * p, below(2), 0.0),
            hue=gated(self.hue * p, angle(), 0.0),
            saturation=gated(self.saturation * p, jnp.exp2(next(normals)), 1.0),
            cutout=jnp.concatenate([pair(evens), side], axis=1),
        )

    def apply(self, images: Float[Array, "b h w c"], draws: Draws) -> Float[Array, "b h w c"]:
        """Do to each image what was drawn for it."""
        if self.scale or self.rotate or self.aniso or self.xfrac:
            images = warp.resample(images, inverse(draws))
        elif self.xflip or self.rotate90 or self.xint:
            images = warp.move(images, inverse(draws))
        return cut(coloured(images, draws), draws.cutout)


def inverse(draws: Draws) -> Float[Array, "b 3 3"]:
    """Return the map from places in the result to places in the image, as in `warp`."""
    one, none = jnp.ones_like(draws.xflip), jnp.zeros_like(draws.xflip)

    def matrix(*entries: Array) -> Float[Array, "b 3 3"]:
        return jnp.stack([*entries, none, none, one], axis=1).reshape(-1, 3, 3)

    def scaling(x: Array, y: Array) -> Float[Array, "b 3 3"]:
        return matrix(1 / x, none, none, none, 1 / y, none)

    def turning(cos: Array, sin: Array) -> Float[Array, "b 3 3"]:
        return matrix(cos, -sin, none, sin, cos, none)

    def moving(by: Float[Array, "b 2"]) -> Float[Array, "b 3 3"]:
        return matrix(one, none, -by[:, 0], none, one, -by[:, 1])

    quarters = draws.rotate90.astype(int)
    parts = (
        scaling(1 - 2 * draws.xflip, one),
        turning(jnp.array([1.0, 0.0, -1.0, 0.0])[quarters], jnp.array([0.0, 1.0, 0.0, -1.0])[quarters]),  # exact
        moving(draws.xint),
        scaling(draws.scale, draws.scale),
        turning(jnp.cos(draws.rotate), jnp.sin(draws.rotate)),
        scaling(draws.aniso, 1 / draws.aniso),
        turning(jnp.cos(draws.rotate_after), jnp.sin(draws.rotate_after)),
        moving(draws.xfrac),
    )
    return functools.reduce(functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST), parts)


def coloured(images: Float[Array, "b h w c"], draws: Draws) -> Float[Array, "b h w c"]:
    """Change brightness, contrast, luma, hue and saturation, in this order.

    All five are maps of the grey part of a colour, its projection on (1, 1, 1), or of the rest, or of both; so their
    product needs no matrices. Three channels have a hue; of one channel the rest is 0.
    """
    column = (len(images), 1, 1, 1)
    sign = (1.0 - 2.0 * draws.lumaflip).reshape(column)
    grey = images.mean(3, keepdims=True)
    cos, sin = (draws.saturation * jnp.cos(draws.hue)), (draws.saturation * jnp.sin(draws.hue))
    # (1, 1, 1) / √3 × colour: what a rotation around grey turns the rest towards.
    across = (jnp.roll(images, 1, axis=3) - jnp.roll(images, -1, axis=3)) / math.sqrt(3)
    rest = cos.reshape(column) * (images - grey) + sin.reshape(column) * across
    return draws.contrast.reshape(column) * (sign * (grey + draws.brightness.reshape(column)) + rest)


def cut(images: Float[Array, "b h w c"], hole: Float[Array, "b 3"]) -> Float[Array, "b h w c"]:
    """Fill a rectangle with zeros, given by the middle (x, y) and the side as shares of the image's."""
    x, y, side = (hole[:, i, None, None, None] for i in range(3))
    _, height, width, _ = images.shape
    columns = jnp.abs(((jnp.arange(width) + 0.5) / width).reshape(1, 1, -1, 1) - x) < side / 2
    rows = jnp.abs(((jnp.arange(height) + 0.5) / height).reshape(1, -1, 1, 1) - y) < side / 2
    return jnp.where(rows & columns, 0.0, images)
