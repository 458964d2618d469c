"""Compiler options: the faster kernels where they are known, and never against the user's own flags."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.parallel import compiler
from jaxgen.parallel.mesh import MeshShape


@pytest.fixture
def mesh():
    return MeshShape().build(jax.devices("cpu")[:1])


def gradient(x, k):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.grad(lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=layout).sum())(
        x, k
    )


def test_on_a_cpu_convolutions_are_xlas_own_and_products_are_not(mesh, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    x, k = jnp.ones((4, 16, 16, 32)), jnp.ones((3, 3, 32, 32))
    chosen = jax.jit(gradient, compiler_options=compiler.options(mesh)).lower(x, k).compile()
    assert "ynn_fusion" not in chosen.as_text()
    product = jax.jit(jnp.matmul, compiler_options=compiler.options(mesh))
    assert "ynn_fusion" in product.lower(jnp.ones((256, 256)), jnp.ones((256, 256))).compile().as_text()
    np.testing.assert_allclose(chosen(x, k), jax.jit(gradient)(x, k), rtol=1e-5)


@pytest.mark.parametrize("side", [1, 2])
def test_convolutions_of_maps_smaller_than_their_kernel_are_not_turned_around(mesh, monkeypatch, side):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    x = jax.random.normal(jax.random.key(0), (4, side, side, 64))
    k = jax.random.normal(jax.random.key(1), (3, 3, 64, 32))
    plain = jax.jit(gradient).lower(x, k).compile()
    chosen = jax.jit(gradient, compiler_options=compiler.options(mesh)).lower(x, k).compile()
    # The image in the kernel's place: what the option is for. Where XLA has learned better, the option can go.
    assert "rhs_reversal" in plain.as_text()
    assert "rhs_reversal" not in chosen.as_text()
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5), chosen(x, k), plain(x, k))


def test_a_kernels_gradient_is_not_transposed_again_and_again(mesh, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    x, k = jnp.ones((16, 16, 16, 8)), jnp.ones((3, 3, 8, 8))

    def loss(k, x):
        return (
            jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")) ** 2
        ).sum()

    def transposes(options):
        step = jax.jit(lambda k, x: k - 0.1 * jax.grad(loss)(k, x), compiler_options=options)
        return step.lower(k, x).compile().as_text().count(" transpose(")

    chosen = compiler.options(mesh)
    # With the mover of reshapes alone: what the option is for. Where XLA has learned better, its half can go.
    assert transposes(chosen | {compiler.PASSES: "algsimp"}) > 100
    assert transposes(chosen) < 10


@pytest.mark.parametrize("name", [compiler.YNN, compiler.PASSES])
def test_what_the_user_has_set_is_left_alone(mesh, monkeypatch, name):
    monkeypatch.setenv("XLA_FLAGS", f"--{name}={compiler.CPU[name]}")
    assert compiler.options(mesh) == {other: value for other, value in compiler.CPU.items() if other != name}


def test_each_option_says_why(mesh, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    line = compiler.explained(compiler.options(mesh))
    assert all(name in line and compiler.WHY[name] in line for name in compiler.CPU)
    assert compiler.explained({}) == "XLA's own"


def test_an_option_that_this_jaxlib_does_not_know_is_left_out(mesh, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setitem(compiler.CPU, "xla_of_a_later_version", "1")
    assert compiler.options(mesh) == {name: compiler.CPU[name] for name in (compiler.YNN, compiler.PASSES)}
