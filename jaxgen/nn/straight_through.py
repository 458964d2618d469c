"""Decisions that pass gradients: forward a decision, backward the derivative of its probability (arXiv:1308.3432)."""

import jax
from jaxtyping import Array, Float


def straight_through(probability: Float[Array, "*s"], decision: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Return the decision, with the gradient of the probability."""
    return probability + jax.lax.stop_gradient(decision - probability)


def likeliest(logits: Float[Array, "*s"], axis: int = -1) -> Float[Array, "*s"]:
    """Return 1 at the largest logit along an axis and 0 elsewhere, with the gradient of the softmax."""
    probability = jax.nn.softmax(logits, axis=axis)
    decision = jax.nn.one_hot(logits.argmax(axis), logits.shape[axis], axis=axis, dtype=logits.dtype)
    return straight_through(probability, decision)


def bits(logits: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """Return 1 where a logit is above 0, else 0, with the gradient of the sigmoid."""
    return straight_through(jax.nn.sigmoid(logits), (logits > 0).astype(logits.dtype))
