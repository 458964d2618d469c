"""What objectives share that make an image again: the distances from it, and how a net takes an image of any size."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.learner import Scalars
from jaxgen.objective import Forward, Image
from jaxgen.objectives.perceptual import Lpips, Perceptual
from jaxgen.typing import Tree

Images = Float[Array, "b h w c"]


def distances(
    image: Images,
    fake: Images,
    *,
    l1: float,
    l2: float,
    perceptual: Perceptual | Lpips | None,
    params: Tree,
    stats: Tree,
) -> Scalars:
    """Return the mean distances by name; "error" is their weighted sum. The nets' params and stats are by name."""
    off, of_row = image - fake, tuple(range(1, image.ndim))
    # Of each image first: a sum of fewer numbers rounds less.
    parts = {"l1": jnp.abs(off).mean(of_row).mean(), "l2": jnp.square(off).mean(of_row).mean()}
    total = l1 * parts["l1"] + l2 * parts["l2"]
    if perceptual is not None:
        seen = {"params": params["perceptual"], **stats["perceptual"]}
        parts["perceptual"] = perceptual.distance(seen, image, fake).mean()
        total += perceptual.weight * parts["perceptual"]
    return {"error": total, **parts}


def padded(forward: Forward, image: np.ndarray, factor: int, scale: int = 1, least: int = 1) -> Image:
    """Return what a net makes of images f32[b h w c], continued by their border until `factor` divides the sides.

    Sides shorter than `least`, a multiple of the factor, are continued up to it. What the net made of the padding is
    cut off again; its images have `scale` times the height and width.
    """
    _, h, w, _ = image.shape
    more = (max(-side % factor, least - side) for side in (h, w))
    wider = ((0, 0), *((0, n) for n in more), (0, 0))
    made = np.asarray(forward(np.pad(image, wider, mode="edge")))
    return Image(pixels=made[:, : h * scale, : w * scale])
