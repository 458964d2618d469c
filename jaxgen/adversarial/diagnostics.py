"""Numbers that show early whether a generator collapses or its discriminator becomes too strong, and what to try."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.gathered import gathered

THUMBNAIL = 8  # pixels along a side at which images are compared: cheap, and enough to see whether they differ


def thumbnails(x: Float[Array, "b *s"]) -> Float[Array, "b d"]:
    """Return images shrunk to about THUMBNAIL² cells, or points as they are, as rows of numbers."""
    if x.ndim == 4:
        b, h, w, c = x.shape
        high, wide = max(1, h // THUMBNAIL), max(1, w // THUMBNAIL)
        x = x[:, : h // high * high, : w // wide * wide]
        x = x.reshape(b, h // high, high, w // wide, wide, c).mean((2, 4))
    return x.reshape(len(x), -1)


def neighbour_distance(x: Float[Array, "b d"]) -> Float[Array, ""]:
    """Return the root mean square distance from each row to the next."""
    return jnp.sqrt(jnp.square(x - jnp.roll(x, 1, axis=0)).sum(1).mean() + 1e-12)


def neighbour_coverage(real: Float[Array, "b d"], fake: Float[Array, "b d"]) -> Float[Array, ""]:
    """Return the share of the real rows whose nearest other row is a generated one.

    Where both have the same distribution it is a half; less means that the generator misses some of the data (the real
    half of the two-sample test by nearest neighbours, arXiv:1610.06545).
    """

    def squared(a: Array, b: Array) -> Array:
        b = gathered(b)
        return jnp.square(a).sum(1)[:, None] - 2 * a @ b.T + jnp.square(b).sum(1)[None]

    own = squared(real, real) + jnp.where(jnp.eye(len(real), dtype=bool), jnp.inf, 0.0)
    return (squared(real, fake).min(1) < own.min(1)).mean()


def compared(real: Float[Array, "b *s"], fake: Float[Array, "b *s"]) -> dict[str, Float[Array, ""]]:
    """Return `diversity`, of the samples as a share of the data's, and `neighbour_coverage`, within one batch."""
    real, fake = thumbnails(real), thumbnails(fake)
    return {
        "diversity": neighbour_distance(fake) / neighbour_distance(real),
        "neighbour_coverage": neighbour_coverage(real, fake),
    }


def diagnose(scalars: Mapping[str, float], progress: float) -> dict[str, str]:
    """Return what is wrong, by kind, and what to try, from the means of some steps' scalars.

    `progress` is the share of the training that has passed. In the first tenth nothing is wrong yet: a new generator
    makes the same image of every z.
    """
    problems = {}
    if progress < 0.1:
        return problems
    if scalars["diversity"] < 0.25:
        problems["collapse"] = (
            f"the samples differ by only {scalars['diversity']:.2f} of what the data do: the generator collapses; "
            "try a penalty R1 or R2 with ten times the gamma, or a lower learning rate"
        )
    elif scalars["neighbour_coverage"] < 0.05:
        problems["coverage"] = (
            f"only {scalars['neighbour_coverage']:.2f} of the real examples have a sample as nearest neighbour (0.5 is "
            "even): the generator misses parts of the data; try RelativisticPairing with R1 and R2, or a larger batch"
        )
    if scalars["paired_accuracy"] > 0.95:
        problems["discriminator"] = (
            f"the discriminator finds the real one in {scalars['paired_accuracy']:.2f} of the pairs: the generator "
            "learns little from it; try ten times the gamma, DiffAugment or Ada, or a lower discriminator learning rate"
        )
    return problems
