"""A small denoiser of points: what a U-Net is to pictures, for densities in a few dimensions."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.models.dit import Condition
from jaxgen.typing import Precision


class MlpDenoiser(nn.Module):
    """Residual layers over points f32[b d], told noise f32[b] and label weights f32[b classes + 1]: f32[b d] back.

    Its output is 0 at first. Raises UserError unless the label fits `classes`.
    """

    classes: int = 0
    """Classes, without the null class; 0 for a net that takes no label."""
    width: int = 128
    depth: int = 3
    """Residual layers."""
    frequency: float = 10.0
    """The highest frequency at which the noise level is seen, in radians per unit: more than a DiT's, because here the
    level is often told as a number below 1 (a flow's t, or ln(σ) / 4)."""
    dtype: Precision = "float32"
    """Type that the layers compute in; parameters, embeddings and the output are float32."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b d"], noise: Float[Array, " b"], label: Float[Array, "b n"] | None, *, train: bool
    ) -> Float[Array, "b d"]:
        del train  # nothing here differs
        c = nn.silu(Condition(self.width, self.classes, self.frequency, name="condition")(noise, label))
        y = nn.Dense(self.width, dtype=self.dtype, name="in")(x)
        for i in range(self.depth):
            # The noise level has to scale what the net sees, not only to shift it: x0 = x / (1 + σ²) for a Gaussian.
            shift, scale = jnp.split(nn.Dense(2 * self.width, dtype=self.dtype, name=f"modulation{i}")(c), 2, axis=1)
            hidden = nn.Dense(self.width, dtype=self.dtype, name=f"layer{i}")(y)
            y = y + nn.Dense(self.width, dtype=self.dtype, name=f"back{i}")(nn.silu(hidden * (1 + scale) + shift))
        return nn.Dense(x.shape[1], kernel_init=nn.initializers.zeros, name="out")(nn.silu(y).astype(jnp.float32))
