"""A denoiser of piano rolls: it says how likely each symbol is, and knows what noise does to symbols."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.typing import Condition


class RollDenoiser(nn.Module):
    """Map x = roll + sigma · noise f32[b t r v] and sigma f32[b] to the expected roll: for `Edm()` and `Direct(X0())`.

    At each step one of a voice's rows is 1, the others -1, and the last row is 1 or -1 (`data.roll`). So the expected
    roll is a softmax over the rows and a sigmoid for the last (score interpolation, arXiv:2211.15089, section 3.1).
    That row k is the one has a likelihood in proportion to exp(2 x_k / sigma²), as only x_k would be another: that much
    is added to the logits by Bayes' rule, so that all the net has to tell is how likely a symbol is by what surrounds
    it.

    Raises what `backbone` raises.
    """

    backbone: Any
    """A denoiser of images, such as DiT, whose output is taken for logits; it sees x / √(1 + sigma²), ln(sigma) / 4."""

    @property
    def classes(self) -> int:
        return self.backbone.classes

    @nn.compact
    def __call__(
        self, x: Float[Array, "b t r v"], noise: Float[Array, " b"], condition: Condition, *, train: bool
    ) -> Float[Array, "b t r v"]:
        sigma = noise[:, None, None, None]
        prior = self.backbone(x / jnp.sqrt(1 + sigma**2), jnp.log(noise) / 4, condition, train=train)
        logits = prior + 2 * x / sigma**2
        symbols, onset = 2 * nn.softmax(logits[:, :, :-1], axis=2) - 1, jnp.tanh(logits[:, :, -1:] / 2)
        return jnp.concatenate([symbols, onset], axis=2)
