"""Compiler options: the faster kernels where they are known, and never against the user's own flags."""

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


def test_what_the_user_has_set_is_left_alone(mesh, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{compiler.YNN}=LIBRARY_FUSION_TYPE_DOT")
    assert compiler.options(mesh) == {}


def test_an_option_that_this_jaxlib_does_not_know_is_left_out(mesh, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setitem(compiler.CPU, "xla_of_a_later_version", "1")
    assert compiler.options(mesh) == {compiler.YNN: compiler.CPU[compiler.YNN]}
