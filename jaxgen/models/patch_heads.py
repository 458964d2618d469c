"""The heads of CUT (arXiv:2007.15651, section 3.2): for each layer a small net that makes its vectors comparable."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.typing import Precision

_start = nn.initializers.normal(0.02)  # of every kernel


class PatchHeads(nn.Module):
    """Map vectors f32[b n c] of each layer, by its name, to unit vectors f32[b n features], by two dense layers."""

    features: int = 256
    """Length of a vector, and of the hidden one."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, vectors: Mapping[str, Array], *, train: bool) -> dict[str, Float[Array, "b _ d"]]:
        del train
        found = {}
        for name, x in vectors.items():
            for i in range(2):
                x = nn.Dense(self.features, kernel_init=_start, dtype=self.dtype, name=f"{name}_{i}")(x)
                x = nn.relu(x) if i == 0 else x
            x = x.astype(jnp.float32)
            found[name] = x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-14)
        return found
