"""Spectral normalisation: layers whose weights, seen as a matrix, have a largest singular value of about 1."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped


def power_iteration(
    kernel: Float[Array, "*in out"], u: Float[Array, " out"]
) -> tuple[Float[Array, ""], Float[Array, " out"]]:
    """Return (σ, u) after one step of power iteration on the matrix out × in (arXiv:1802.05957, algorithm 1).

    σ approaches the largest singular value from below as u is handed on from step to step. Its gradient holds the
    singular vectors constant: it is their outer product (equation 12).
    """
    matrix = kernel.reshape(-1, kernel.shape[-1]).astype(jnp.float32)
    held = jax.lax.stop_gradient(matrix)
    v = _unit(held @ u)
    u = _unit(v @ held)
    return v @ matrix @ u, u


def spectral(layer: nn.Module, x: Shaped[Array, "b *s"], *, train: bool) -> Float[Array, "b *t"]:
    """Apply a named layer, its kernel or table divided by its σ; call it inside a compact method.

    The parameter itself stays as it is, so the gradient goes through σ. Each call takes one step of power iteration
    from the vector kept in "spectral"; in training the new vector is stored there.
    """
    return _Spectral(layer, name=f"{layer.name}_spectral")(x, train)


class _Spectral(nn.Module):
    """flax.linen.SpectralNorm would store the divided kernel when it is initialised, and so lose the initialiser."""

    layer: nn.Module

    @nn.compact
    def __call__(self, x: Shaped[Array, "b *s"], train: bool) -> Float[Array, "b *t"]:
        if self.is_initializing():
            self.layer(x)
        (kernel,) = (leaf for leaf in jax.tree.leaves(self.layer.variables["params"]) if leaf.ndim > 1)
        u = self.variable("spectral", "u", self._start, kernel.shape[-1])
        sigma, new = power_iteration(kernel, u.value)
        if train and not self.is_initializing():
            u.value = new

        divide = lambda leaf: leaf / sigma if leaf.ndim > 1 else leaf  # noqa: E731
        normalised = nn.map_variables(
            lambda layer: layer(x), "params", trans_in_fn=lambda params: jax.tree.map(divide, params)
        )
        return normalised(self.layer)

    def _start(self, size: int) -> Float[Array, " {size}"]:
        return _unit(jax.random.normal(self.make_rng("params"), (size,)))


def _unit(x: Float[Array, " n"]) -> Float[Array, " n"]:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)
