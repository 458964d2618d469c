"""Noise: normal draws that are functions of their keys, and the arc from one draw to another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import noise
from jaxgen.noise import fold, normal

slerp = jax.jit(noise.slerp)

SHARES = np.linspace(0, 1, 5, dtype=np.float32)


def shares(share: float, n: int) -> jax.Array:
    return jnp.full(n, share, jnp.float32)


@pytest.mark.parametrize("shape", [(16,), (4, 4, 3)])
def test_the_arc_is_the_great_circles(shape, key):
    a, b = jax.random.normal(key, (2, 6, *shape))
    b = b * 3  # lengths need not be equal
    u, v = (np.asarray(x, np.float64).reshape(6, -1) for x in (a, b))
    size_u, size_v = np.linalg.norm(u, axis=1), np.linalg.norm(v, axis=1)
    angle = np.arccos((u * v).sum(1) / size_u / size_v)
    for t in SHARES:
        at = np.asarray(slerp(a, b, shares(t, 6)), np.float64)
        assert at.shape == (6, *shape)
        at = at.reshape(6, -1)
        size = np.linalg.norm(at, axis=1)
        np.testing.assert_allclose(size, (1 - t) * size_u + t * size_v, rtol=1e-5)  # the length changes evenly
        turned = np.arccos(np.clip((at * u).sum(1) / size / size_u, -1, 1))
        np.testing.assert_allclose(turned, t * angle, atol=2e-3)  # and so does the angle
        # And it stays in the plane of both.
        for basis, row in zip(np.stack([u, v], axis=2), at, strict=True):
            np.testing.assert_allclose(basis @ np.linalg.lstsq(basis, row)[0], row, atol=1e-5)


def test_its_ends_are_the_two():
    a, b = jax.random.normal(jax.random.key(1), (2, 3, 8))
    np.testing.assert_allclose(slerp(a, b, jnp.array([0.0, 1.0, 0.0])), jnp.stack([a[0], b[1], a[2]]), atol=1e-6)


def test_where_there_is_no_one_arc_it_is_the_straight_line():
    a = jnp.array([[1.0, 2.0]] * 3)
    b = jnp.array([[2.0, 4.0], [-3.0, -6.0], [1.0, 2.0]])  # the same way, opposite, equal
    for t in SHARES:
        np.testing.assert_allclose(slerp(a, b, shares(t, 3)), (1 - t) * a + t * b, atol=1e-5)


def test_halfway_between_normal_draws_is_as_far_out_as_they_are(key):
    keys = jax.random.split(key, 64)
    half = slerp(normal(keys, 0, (512,)), normal(fold(keys, 9), 0, (512,)), shares(0.5, 64))
    # |z|² / 512 is 1 with a standard deviation of √(2 / 512) in each row; on the straight line it would be a half.
    np.testing.assert_allclose(jnp.square(half).mean(), 1, atol=0.03)


def test_each_row_has_a_draw_and_a_share_of_its_own(key):
    keys = jax.random.split(key, 4)
    plain = normal(keys, 3, (5,))
    others = normal(jnp.roll(keys, -1), 3, (5,))
    np.testing.assert_array_equal(others, jnp.roll(plain, -1, axis=0))
    mixed = slerp(plain, others, jnp.array([0.0, 1.0, 0.0, 1.0]))
    np.testing.assert_allclose(mixed, plain[jnp.array([0, 2, 2, 0])], atol=1e-5)


def test_a_row_is_a_function_of_its_key_and_the_number(key):
    keys = jax.random.split(key, 5)
    rows = normal(keys, 0, (3, 2))
    assert rows.dtype == jnp.float32
    np.testing.assert_array_equal(normal(keys[2:3], 0, (3, 2)), rows[2:3])
    assert len(np.unique(np.concatenate([rows.ravel(), normal(keys, 1, (3, 2)).ravel()]))) == 60
    np.testing.assert_array_equal(
        jax.random.key_data(fold(keys, 7))[1], jax.random.key_data(jax.random.fold_in(keys[1], 7))
    )
