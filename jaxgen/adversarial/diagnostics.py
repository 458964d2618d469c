"""Numbers that tell early whether a generator collapses or its discriminator runs away, and what to try then."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.parallel.activations import gathered

THUMBNAIL = 8  # pixels along a side at which pictures are compared: cheap, and enough to tell whether they differ


def thumbnails(x: Float[Array, "b *s"]) -> Float[Array, "b d"]:
    """Return pictures shrunk to about THUMBNAIL² cells, or points as they are, as rows of numbers."""
    if x.ndim == 4:
        b, h, w, c = x.shape
        high, wide = max(1, h // THUMBNAIL), max(1, w // THUMBNAIL)
        x = x[:, : h // high * high, : w // wide * wide]
        x = x.reshape(b, h // high, high, w // wide, wide, c).mean((2, 4))
    return x.reshape(len(x), -1)


def diversity(x: Float[Array, "b d"]) -> Float[Array, ""]:
    """Return the root mean square distance between neighbours in the batch."""
    return jnp.sqrt(jnp.square(x - jnp.roll(x, 1, axis=0)).sum(1).mean() + 1e-12)


def neighbour_coverage(real: Float[Array, "b d"], fake: Float[Array, "b d"]) -> Float[Array, ""]:
    """Return the share of the real rows whose nearest other row is a generated one.

    Where they cannot be told apart it is a half; less means that the generator misses some of the data (the real half
    of the two-sample test by nearest neighbours, arXiv:1610.06545).
    """

    def squared(a: Array, b: Array) -> Array:
        b = gathered(b)
        return jnp.square(a).sum(1)[:, None] - 2 * a @ b.T + jnp.square(b).sum(1)[None]

    own = squared(real, real) + jnp.where(jnp.eye(len(real), dtype=bool), jnp.inf, 0.0)
    return (squared(real, fake).min(1) < own.min(1)).mean()


def compared(real: Float[Array, "b *s"], fake: Float[Array, "b *s"]) -> dict[str, Float[Array, ""]]:
    """Return `spread`, of the samples as a share of the data's, and `covered`, within one batch."""
    real, fake = thumbnails(real), thumbnails(fake)
    return {"spread": diversity(fake) / diversity(real), "covered": neighbour_coverage(real, fake)}


def warnings(values: Mapping[str, float], share: float) -> dict[str, str]:
    """Return what is wrong, by kind, and what to try, from the means of a stretch of steps.

    `share` of the training has passed: in its first tenth a generator that makes the same of everything is young, not
    collapsed.
    """
    found = {}
    if share < 0.1:
        return found
    if values["spread"] < 0.25:
        found["collapse"] = (
            f"the samples differ by only {values['spread']:.2f} of what the data do: the generator collapses; "
            "try a penalty R1 or R2 with ten times the gamma, or a lower learning rate"
        )
    elif values["covered"] < 0.05:
        found["coverage"] = (
            f"only {values['covered']:.2f} of the real examples have a sample for a nearest neighbour (0.5 is even): "
            "the generator misses parts of the data; try RelativisticPairing with R1 and R2, or a larger batch"
        )
    if values["told_apart"] > 0.95:
        found["discriminator"] = (
            f"the discriminator tells {values['told_apart']:.2f} of the pairs apart: the generator learns little from "
            "it; try ten times the gamma, DiffAugment or Ada, or a lower discriminator rate"
        )
    return found
