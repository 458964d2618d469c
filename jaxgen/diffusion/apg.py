"""Adaptive projected guidance, which allows high scales without oversaturated colours."""

import dataclasses
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.diffusion.guidance import Guided, check_droppable
from jaxgen.errors import UserError
from jaxgen.typing import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Apg:
    """Adaptive projected guidance: the part of the guidance along the estimate only saturates (arXiv:2410.02416)."""

    scale: float = 4.0
    """1 for none."""
    parallel: float = 0.0
    """Weight of the part along the conditional estimate; 1, without a threshold and momentum, is ClassifierFree."""
    threshold: float = math.inf
    """Largest norm of the difference of a sample's two estimates; it grows with the root of the sample's size."""
    momentum: float = 0.0
    """Weight of earlier calls' differences; the paper's are negative, such as -0.5. Carried from call to call."""

    def __post_init__(self) -> None:
        if self.threshold <= 0 or not -1 < self.momentum < 1:
            raise UserError("Apg.threshold is above 0 and Apg.momentum between -1 and 1")

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        check_droppable("Apg", self.scale, conditional, droppable)

    def evaluations(self, sigma: float) -> int:
        return 1 if self.scale == 1 else 2

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return jnp.zeros_like(x) if self.momentum and self.scale != 1 else ()

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        if self.scale == 1:
            return net.conditional(x, sigma), memory
        conditional, null = net.with_and_without(x, sigma)
        difference = conditional - null
        if self.momentum:
            difference = memory = (difference + self.momentum * memory).astype(x.dtype)
        if math.isfinite(self.threshold):
            # A length with a derivative also at 0, for restoration.
            length = jnp.sqrt(jnp.maximum(_sum(difference * difference), 1e-24))
            difference = difference * jnp.minimum(1, self.threshold / length)
        squared_norm = jnp.maximum(_sum(conditional * conditional), 1e-12)
        along = _sum(difference * conditional) / squared_norm * conditional
        return conditional + (self.scale - 1) * (difference - along + self.parallel * along), memory


def _sum(x: Float[Array, "b *s"]) -> Float[Array, "b *ones"]:
    return x.sum(tuple(range(1, x.ndim)), keepdims=True)
