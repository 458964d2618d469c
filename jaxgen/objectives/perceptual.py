"""How unlike two images are to a net that was trained for something else."""

import abc
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
from jaxgen.nn.interfaces import Comparing, require
from jaxgen.nn.norm import unit_length
from jaxgen.tree import leaves
from jaxgen.typing import Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class _InMaps(abc.ABC):
    """A distance in maps of a net: squared, mean over cells, sum over channels, sum over layers."""

    net: Learner
    """Frozen: with `weights`, such as those of another run (`FromRun`), and without an optimizer. Its module is called
    with the images f32[b h w c], in [-1, 1]."""
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_field(self, "weight", 0 <= self.weight < math.inf, "0 or more")
        if self.net.optimizer is not None:
            raise UserError("objective.perceptual.net has an optimizer; what images are compared by must stand still")

    @abc.abstractmethod
    def check(self, spec: Spec) -> None:
        """Raise UserError where the net has no maps of such images."""

    @abc.abstractmethod
    def maps(self, variables: Tree, image: Float[Array, "b h w c"]) -> list[Float[Array, "b *s k"]]:
        """Return what is compared of images."""

    def distance(
        self, variables: Tree, image: Float[Array, "b h w c"], other: Float[Array, "b h w c"]
    ) -> Float[Array, " b"]:
        """Return a number for each pair of images."""
        total = jnp.zeros(len(image))
        for both in self.maps(variables, jnp.concatenate([image, other])):
            x, y = jnp.split(both.astype(jnp.float32), 2)
            total += jnp.square(x - y).sum(-1).mean(tuple(range(1, x.ndim - 1)))
        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perceptual(_InMaps):
    """The distance of two images in the maps of a frozen net (arXiv:1603.08155), of unit length at each cell.

    That is the form of LPIPS, with the same weight for every channel, for any net that we have.
    """

    layers: str
    """Regular expression: the modules whose outputs are compared, by their path, such as "block1$"."""

    def check(self, spec: Spec) -> None:
        """Raise UserError where `layers` finds no map of the net."""
        image, module = jax.eval_shape(lambda: blank(spec)), self.net.module
        variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)
        if not jax.eval_shape(self.maps, variables, image):
            paths = sorted({path.rsplit("/", 1)[0].removeprefix("params/") for path, _ in leaves(variables)})
            raise UserError(
                f"objective.perceptual.layers: {self.layers!r} finds no map of the net; modules are "
                f"{', '.join(paths[:6])}"
            )

    def maps(self, variables: Tree, image: Float[Array, "b h w c"]) -> list[Float[Array, "b *s k"]]:
        def compared(module: nn.Module, method: str) -> bool:
            return method == "__call__" and re.search(self.layers, "/".join(module.path)) is not None

        module: Any = self.net.module
        _, kept = module.apply(variables, image, train=False, capture_intermediates=compared, mutable=["intermediates"])
        return [unit_length(x.astype(jnp.float32)) for x in jax.tree.leaves(kept) if x.ndim >= 2]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lpips(_InMaps):
    """LPIPS (arXiv:1801.03924), the distance that people were asked about: of `LpipsVgg`, by `LpipsFile`."""

    def check(self, spec: Spec) -> None:
        """Raise UserError for a net that is none of LPIPS, or has no weights, and for images that it does not take."""
        require(self.net.module, Comparing, "perceptual.net")
        if self.net.weights is None:
            raise UserError("objective.perceptual.net has no weights; give it weights=LpipsFile(path)")
        shape = spec["image"].shape[1:]
        if shape[2] != 3 or min(shape[:2]) < 16:
            raise UserError(
                f"objective.perceptual: Lpips compares colour images of 16 pixels a side or more, and these are "
                f"{'×'.join(map(str, shape))}; leave it out"
            )

    def maps(self, variables: Tree, image: Float[Array, "b h w c"]) -> list[Float[Array, "b *s k"]]:
        module: Any = self.net.module
        return [*module.apply(variables, image, train=False, method="compared")]
