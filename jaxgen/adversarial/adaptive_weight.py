"""How much a discriminator's verdict counts beside a distance, so that both pull alike (VQGAN, arXiv:2012.09841)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Images = Float[Array, "b *s"]
Term = Callable[[Images], Float[Array, ""]]

LARGEST = 1e4


def adaptive_weight(made: Callable[[Array], Images], kernel: Array, distance: Term, verdict: Term) -> Float[Array, ""]:
    """Return how many times the distance's gradient at a kernel is as large as the verdict's, 1e4 at most.

    `made` maps the kernel, the last of the net that makes the images, to them. No gradient flows through the result.
    Source: equation 7.
    """
    fake, pull = jax.vjp(made, jax.lax.stop_gradient(kernel))
    near, real = (optax.tree.norm(pull(jax.grad(term)(fake))) for term in (distance, verdict))
    return jax.lax.stop_gradient(jnp.clip(near / (real + 1e-4), 0.0, LARGEST))
