"""Multi-head self-attention over tokens: how channels become heads, and how heads attend (arXiv:1706.03762)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.typing import UserError

Heads = Float[Array, "b t n d"]  # t tokens, n heads of d channels


def split_heads(qkv: Float[Array, "b *s c"], size: int) -> tuple[Heads, Heads, Heads]:
    """Split channels, thirds first, into queries, keys and values of heads with `size` channels; *s becomes tokens.

    Raises UserError if a third does not divide into heads of that size.
    """
    b, *_, channels = qkv.shape
    if size < 1 or channels % (3 * size):
        raise UserError(
            f"attention: {channels // 3} channels do not divide into heads of {size}; "
            "make every width of the net a multiple of the head's size"
        )
    q, k, v = (third.reshape(b, -1, channels // (3 * size), size) for third in jnp.split(qkv, 3, axis=-1))
    return q, k, v


def attend(q: Heads, k: Heads, v: Heads) -> Float[Array, "b t c"]:
    """Average values by softmax(q·k / √d), taken in float32 whatever the arrays' type; heads return to channels."""
    b, t, _, _ = q.shape
    return jax.nn.dot_product_attention(q, k, v).reshape(b, t, -1)
