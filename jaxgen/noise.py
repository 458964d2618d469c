"""Random numbers by position: keys of numbered rows, normal draws from them, and interpolation between draws."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray


def numbered(key: PRNGKeyArray, numbers: Int[Array, " b"]) -> Key[Array, " b"]:
    """Return the key of each number, which depends on no other number."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)


def fold(keys: Key[Array, " b"], number: int) -> Key[Array, " b"]:
    """Return the key of this number that is derived from each key."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def normal(keys: Key[Array, " b"], number: int, shape: tuple[int, ...]) -> Float[Array, "b *s"]:
    """Draw from the standard normal distribution, each row from its own key's key of this number."""
    return jax.vmap(lambda key: jax.random.normal(key, shape, jnp.float32))(fold(keys, number))


def slerp(a: Float[Array, "b *s"], b: Float[Array, "b *s"], share: Float[Array, " b"]) -> Float[Array, "b *s"]:
    """Go from a (share 0) to b (share 1) along a great circle, the length changing evenly (arXiv:1609.04468).

    Halfway between two normal draws the straight line is a factor √2 too near the origin, where a generator has seen
    nothing; the arc is not. Rows that point the same or opposite ways have no one arc: there it is the straight line.
    """
    flat_a, flat_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    size_a, size_b = (jnp.linalg.norm(x, axis=1, keepdims=True) for x in (flat_a, flat_b))
    unit_a, unit_b = flat_a / jnp.maximum(size_a, 1e-12), flat_b / jnp.maximum(size_b, 1e-12)
    t = share[:, None]
    cosine = jnp.clip((unit_a * unit_b).sum(1, keepdims=True), -1.0, 1.0)
    angle = jnp.arccos(cosine)
    sine = jnp.sin(angle)
    apart = sine > 1e-3  # near ±1 the cosine's rounding moves the angle by 3e-4
    arc = (jnp.sin((1 - t) * angle) * unit_a + jnp.sin(t * angle) * unit_b) / jnp.where(apart, sine, 1.0)
    on_arc = arc * ((1 - t) * size_a + t * size_b)
    return jnp.where(apart, on_arc, (1 - t) * flat_a + t * flat_b).reshape(a.shape)
