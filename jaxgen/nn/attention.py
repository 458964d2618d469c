"""Multi-head attention over tokens: how channels become heads, and how heads attend (arXiv:1706.03762)."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgen.errors import UserError

Heads = Float[Array, "b t n d"]  # t tokens, n heads of d channels
Others = Float[Array, "b s n d"]  # s tokens, the same or others


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


def attend(q: Heads, k: Others, v: Others, mask: Bool[Array, "b #t s"] | None = None) -> Float[Array, "b t c"]:
    """Average values by softmax(q·k / √d), taken in float32 for arrays of every type; heads return to channels.

    Tokens attend to those for which `mask` is true; None: to all. Where it is true for none, they attend to all alike.

    On NVIDIA GPUs it uses cuDNN's flash attention (arXiv:2307.08691), which never writes all weights to memory, where
    that supports the arrays and there is no mask; otherwise a warning says why not, but for masks.
    """
    b, t, _, _ = q.shape
    device = jax.devices()[0]
    flash = False
    if device.platform == "gpu" and mask is None:
        reason = unfit_for_flash(q, device, jax.sharding.get_abstract_mesh())
        flash = reason is None
        if reason is not None:
            warnings.warn(f"attention runs without cuDNN's flash attention: {reason}", stacklevel=2)
    heads = None if mask is None else mask[:, None]
    how = "cudnn" if flash else None
    return jax.nn.dot_product_attention(q, k, v, mask=heads, implementation=how).reshape(b, t, -1)


def unfit_for_flash(q: Heads, device: Any, mesh: Any) -> str | None:
    """Say why cuDNN's flash attention does not support the queries on a device and a mesh; None if it does."""
    capability = getattr(device, "compute_capability", None)
    if capability is None or float(capability) < 8.0:
        return f"{device.device_kind} is no NVIDIA GPU from Ampere on"
    if q.dtype not in (jnp.bfloat16, jnp.float16):
        return f'it computes in 16 bits, and the net in {q.dtype}; set its dtype to "bfloat16"'
    if q.shape[-1] % 8 or q.shape[-1] > 128:
        return f"heads have {q.shape[-1]} channels; it takes multiples of 8 up to 128"
    if mesh.shape.get("context", 1) > 1:
        return "tokens are split over the mesh's axis 'context'"
    return None
