"""What the autoencoder of emoji makes of a picture, with the weights that come with jaxgen."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.features.net import Features
from jaxgen.learner import Learner
from jaxgen.objectives.latent_space import LatentSpace
from jaxgen.weights.shipped import EMOJI_F4, EmojiF4

SHAPE = (32, 32, 3)
SPACE = LatentSpace(autoencoder=Learner(module=EMOJI_F4, weights=EmojiF4()))


@dataclasses.dataclass(frozen=True)
class EmojiLatents(Features):
    """The means of a picture's latents, 8×8×8 numbers, for pictures f32[b 32 32 3] in [-1, 1].

    They hold nearly all of the picture (psnr 32), colours and places included, and no names.
    """

    @property
    def name(self) -> str:
        return "emoji_f4"

    def extractor(self) -> Callable[[Float[Array, "b h w c"]], Float[Array, "b d"]]:
        """Return the pure function of a batch.

        It raises UserError for pictures that are not 32 x 32 in colour.
        """
        return _means


@functools.cache
def _variables() -> Any:
    return EmojiF4().read(jax.eval_shape(lambda: EMOJI_F4.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), train=False)))


def _means(images: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
    if images.shape[1:] != SHAPE:
        raise UserError(f"EmojiLatents reads pictures of 32x32x3, not {'x'.join(map(str, images.shape[1:]))}")
    moments = SPACE.encode(_variables(), {}, images)
    return SPACE.draw(_variables(), moments, None).reshape(len(images), -1)
