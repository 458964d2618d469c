"""How unlike two images are to a net that was trained for something else."""

import dataclasses
import math
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, blank
from jaxgen.tree import leaves
from jaxgen.typing import Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perceptual:
    """The distance of two images in the maps of a frozen net (arXiv:1603.08155), of unit length at each cell.

    That is the form of LPIPS (arXiv:1801.03924), with the same weight for every channel: mean over cells, sum over
    channels, sum over layers.
    """

    net: Learner
    """Frozen: with `weights`, such as those of another run (`FromRun`), and without an optimizer. Its module is called
    with the images f32[b h w c], in [-1, 1]."""
    layers: str
    """Regular expression: the modules whose outputs are compared, by their path, such as "block1$"."""
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_field(self, "weight", 0 <= self.weight < math.inf, "0 or more")
        if self.net.optimizer is not None:
            raise UserError("objective.perceptual.net has an optimizer; what images are compared by must stand still")

    def check(self, spec: Spec) -> None:
        """Raise UserError where `layers` finds no map of the net."""
        image, module = jax.eval_shape(lambda: blank(spec)), self.net.module
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
        if not jax.tree.leaves(jax.eval_shape(self._maps, variables, image)):
            paths = sorted({path.rsplit("/", 1)[0].removeprefix("params/") for path, _ in leaves(variables)})
            raise UserError(
                f"objective.perceptual.layers: {self.layers!r} finds no map of the net; modules are "
                f"{', '.join(paths[:6])}"
            )

    def distance(
        self, variables: Tree, image: Float[Array, "b h w c"], other: Float[Array, "b h w c"]
    ) -> Float[Array, " b"]:
        """Return a number for each pair of images."""
        both = jax.tree.leaves(self._maps(variables, jnp.concatenate([image, other])))
        total = jnp.zeros(len(image))
        for maps in both:
            x, y = jnp.split(_unit(maps.astype(jnp.float32)), 2)
            total += jnp.square(x - y).sum(-1).mean(tuple(range(1, x.ndim - 1)))
        return total

    def _maps(self, variables: Tree, image: Float[Array, "b h w c"]) -> Tree:
        def compared(module: nn.Module, method: str) -> bool:
            return method == "__call__" and re.search(self.layers, "/".join(module.path)) is not None

        module: Any = self.net.module
        _, kept = module.apply(variables, image, train=False, capture_intermediates=compared, mutable=["intermediates"])
        return [x for x in jax.tree.leaves(kept) if x.ndim >= 2]


def _unit(x: Float[Array, "b *s c"]) -> Float[Array, "b *s c"]:
    # The root's gradient is infinite at 0, where a map of ReLUs may well be.
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-10)
