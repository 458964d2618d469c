"""Gradients of a loss, averaged over microbatches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jaxgen.typing import Tree


def split_batch(batch: Tree, parts: int) -> Tree:
    """Divide the rows of a batch into equal parts, along a new first axis.

    Part j holds rows j, j + parts, …, so that each part lies on all devices.
    """
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)


# (params, stats, batch, key) -> loss, (new stats, scalars to log)
Loss = Callable[[Tree, Tree, Tree, PRNGKeyArray], tuple[Array, tuple[Tree, dict[str, Array]]]]


def gradients(
    loss: Loss, params: Tree, stats: Tree, batch: Tree, key: PRNGKeyArray, microbatches: int = 1
) -> tuple[Tree, Tree, dict[str, Array]]:
    """Return (gradient of the loss, new stats, scalars), averaged over `microbatches` equal parts of the batch.

    With more than one part (gradient accumulation) only one part's activations live at a time; batch statistics
    pass from part to part.
    """
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if microbatches == 1:
        (value, (stats, scalars)), grads = differentiate(params, stats, batch, key)
        return grads, stats, {"loss": value, **scalars}

    def one(carry: tuple[Tree, Tree], xs: Any) -> tuple[tuple[Tree, Tree], dict[str, Array]]:
        total, stats = carry
        part, k = xs
        (value, (stats, scalars)), grads = differentiate(params, stats, part, k)
        return (jax.tree.map(jnp.add, total, grads), stats), {"loss": value, **scalars}

    zeros = jax.tree.map(jnp.zeros_like, params)
    xs = split_batch(batch, microbatches), jax.random.split(key, microbatches)
    (total, stats), scalars = jax.lax.scan(one, (zeros, stats), xs)
    return jax.tree.map(lambda g: g / microbatches, total), stats, jax.tree.map(lambda s: s.mean(0), scalars)
