"""Counted operations against arithmetic done by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen.plan.flops import flops


def conv(stride, padding, groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lambda x, k: jax.lax.conv_general_dilated(
        x, k, (stride, stride), padding, dimension_numbers=numbers, feature_group_count=groups
    )


def test_a_matrix_product_is_two_operations_for_each_multiply_add():
    assert flops(jnp.dot, jnp.ones((5, 7)), jnp.ones((7, 11))) == 2 * 5 * 7 * 11


@pytest.mark.parametrize(
    ("function", "kernel", "expected"),
    [
        (conv(1, "VALID"), (3, 3, 4, 6), 2 * 2 * 6 * 6 * 9 * 4 * 6),
        (conv(2, "VALID"), (2, 2, 4, 6), 2 * 2 * 4 * 4 * 4 * 4 * 6),
        # 8 places x 3 taps, less the two that fall outside, along each side
        (conv(1, "SAME"), (3, 3, 4, 6), 2 * 2 * 22 * 22 * 4 * 6),
        (conv(1, "VALID", groups=4), (3, 3, 1, 4), 2 * 2 * 6 * 6 * 9 * 4),
    ],
)
def test_a_convolution_counts_the_products_that_are_not_with_padding(function, kernel, expected):
    assert flops(function, jnp.ones((2, 8, 8, 4)), jnp.ones(kernel)) == expected


def test_the_backward_pass_of_a_convolution_costs_twice_the_forward():
    x, k = jnp.ones((2, 8, 8, 4)), jnp.ones((2, 2, 4, 6))
    f = conv(2, "VALID")
    both = jax.value_and_grad(lambda x, k: f(x, k).sum(), (0, 1))
    assert flops(both, x, k) == 3 * flops(f, x, k)


def test_a_scan_counts_as_often_as_it_runs():
    w = jnp.ones((6, 6))
    body = lambda x, _: (x @ w, None)  # noqa: E731
    assert flops(lambda x: jax.lax.scan(body, x, None, length=9)[0], jnp.ones((3, 6))) == 9 * 2 * 3 * 6 * 6


def test_remat_adds_the_forward_pass_again():
    w = jnp.ones((6, 6))
    f = lambda w, x: jnp.tanh(jnp.tanh(x @ w) @ w).sum()  # noqa: E731
    plain = flops(jax.grad(f), w, jnp.ones((3, 6)))
    assert flops(jax.grad(jax.checkpoint(f)), w, jnp.ones((3, 6))) > plain
