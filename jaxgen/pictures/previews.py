"""What the objectives that make examples show of them."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.noise import slerp
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, reach_of, scatter
from jaxgen.typing import Condition

REAL, FAKE = (-0.2, 0.55, 0.1), (0.9, -0.3, -0.4)  # green and red, in [-1, 1]
CELLS = 192  # along each side of a picture of the plane
ROWS, COLUMNS = 4, 8  # of sheets that go from one sample to another, or from the mean to the sample

# (z, keys, condition, truncation) -> images
Generate = Callable[[Float[Array, "b z"], Key[Array, " b"], Condition, float], Float[Array, "b h w c"]]


def grid(x: Float[Array, "n *s"], columns: int) -> Panels:
    """Lay images out in rows; of points, one picture of where they lie."""
    if x.ndim == 2:
        return on_plane([x])
    return Panels(images=jnp.clip(x, -1.0, 1.0).reshape(-1, columns, *x.shape[1:]))


def on_plane(clouds: Sequence[Float[Array, "n d"]], columns: tuple[str, ...] = ()) -> Panels:
    """Draw where points lie, one picture for each cloud, in a row; each is as large as its own cloud."""
    reach = jnp.stack([reach_of(x) for x in clouds])
    return Panels(
        images=jnp.stack([scatter(x, reach=r) for x, r in zip(clouds, reach, strict=True)])[None],
        columns=columns,
        reach=reach[None],
    )


def interpolation(
    generate: Generate, z: Float[Array, "n z"], keys: Key[Array, " n"], condition: Condition, truncation: float
) -> Panels:
    """Go from each of the first samples to the next one in z; keys and condition stay the first one's."""
    first = jnp.repeat(jnp.arange(ROWS) % len(z), COLUMNS)
    share = jnp.tile(jnp.linspace(0.0, 1.0, COLUMNS), ROWS)
    between = slerp(z[first], jnp.roll(z, -1, axis=0)[first], share)
    return grid(generate(between, keys[first], jax.tree.map(lambda x: x[first], condition), truncation), COLUMNS)


def truncations(generate: Generate, z: Float[Array, "n z"], keys: Key[Array, " n"], condition: Condition) -> Panels:
    """Show the first samples at truncations from 0 to 1."""
    first = jnp.arange(ROWS) % len(z)
    few = z[first], keys[first], jax.tree.map(lambda x: x[first], condition)
    sweep = jnp.stack([generate(*few, j / (COLUMNS - 1)) for j in range(COLUMNS)], 1)
    return grid(sweep.reshape(-1, *sweep.shape[2:]), COLUMNS)


def verdict(
    real: Float[Array, "n h w c"],
    fake: Float[Array, "n h w c"],
    on_real: Float[Array, " n"],
    on_fake: Float[Array, " n"],
) -> Panels:
    """Frame real images, and generated ones beneath, in the colour of the probability of being real.

    It goes from red, where an image is fake (0), to green, where it is real (1).
    """
    share = jnp.stack([on_real, on_fake])[..., None]
    frame = share * jnp.array([[REAL]]) + (1 - share) * jnp.array([[FAKE]])
    images = jnp.clip(jnp.stack([real, fake]), -1.0, 1.0)
    return Panels(images=images, titles=("real", "generated"), frame=frame)


def landscape(
    real: Float[Array, "n 2"], fake: Float[Array, "m 2"], likely: Float[Array, " cells"], reach: Float[Array, ""]
) -> Panels:
    """Draw real points, generated points, and the probability of being real at each place of `plane`, dark for 0."""
    land = grey_to_rgb(2 * likely.reshape(CELLS, CELLS, 1) - 1)
    return Panels(
        images=jnp.stack([scatter(real, CELLS, reach), scatter(fake, CELLS, reach), land])[None],
        columns=("data", "generated", "probability of being real"),
        reach=jnp.full((1, 3), reach),
    )


def plane(reach: Float[Array, ""]) -> Float[Array, "n 2"]:
    """Return the centres of CELLS × CELLS squares from -reach to reach, row by row from the top."""
    line = (jnp.arange(CELLS) + 0.5) / CELLS * 2 - 1
    y, x = jnp.meshgrid(-line, line, indexing="ij")
    return reach * jnp.stack([x.ravel(), y.ravel()], axis=1)
