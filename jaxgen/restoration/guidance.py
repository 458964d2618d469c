"""A measurement as guidance: any guidance's estimate, made to know what was measured of the picture."""

import dataclasses
import math

import jax
from jaxtyping import Array, Float

from jaxgen.diffusion.guidance import Guidance, Guided, Unguided
from jaxgen.errors import UserError
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.methods import Method, Tweedie
from jaxgen.typing import Tree


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Restoring:
    """Draw not from p(x0) but from p(x0 | y), y being a measurement of each sample's picture."""

    damage: Damage
    """What is known of how y came to be."""
    measured: Float[Array, "n *m"]
    """y, a row for each sample, or a single one for all."""
    method: Method = Tweedie()
    """How the estimate of x0 comes to know y."""
    inner: Guidance = Unguided()
    """The guidance whose estimate that is."""

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        self.method.check(self.damage)
        self.inner.check(conditional=conditional, droppable=droppable, guide=guide)

    def evaluations(self, sigma: float) -> int:
        products = 0 if math.isinf(self.damage.noise) else self.method.evaluations(sigma)
        return self.inner.evaluations(sigma) * (1 + products)

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return self.inner.memory(x)

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        """Return the estimate of x0 given x and y; see `methods`.

        Raises UserError where there are measurements for other samples than these.
        """
        if math.isinf(self.damage.noise):
            return self.inner.step(net, x, sigma, memory)
        if len(self.measured) not in (1, len(x)):
            raise UserError(
                f"there are {len(self.measured)} measurements for {len(x)} samples: give one, or one for each; "
                "Adaptive takes samples one by one, so that it needs one for all"
            )

        def estimate(x: Float[Array, "b *s"]) -> tuple[Float[Array, "b *s"], Tree]:
            x0, new = self.inner.step(net, x, sigma, memory)
            return x0.astype(x.dtype), new

        x0, pulled, new = jax.vjp(estimate, x, has_aux=True)
        residual = self.damage.linear(self.measured) - self.damage.operator.forward(x0)
        correction = self.method.correction(lambda u: pulled(u)[0], self.damage, residual, sigma)
        return x0 + correction, new
