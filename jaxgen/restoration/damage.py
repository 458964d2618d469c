"""How a picture was damaged: y = A x + offset + noise, in the units of [-1, 1]."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from jaxgen.errors import UserError
from jaxgen.restoration.operators import Composed, Mask, Operator, Scale, count, norm
from jaxgen.restoration.separable import Blur, Border


@struct.dataclass
class Damage:
    """A linear operator, or a `Response`, then a number added to all, then noise."""

    operator: Any
    """What is measured of a picture: an `Operator`, or a `Response`, which is not linear."""
    noise: float = struct.field(pytree_node=False, default=0.0)
    """Standard deviation of the noise, for values in [-1, 1]: twice that for [0, 1]; inf where nothing is known."""
    offset: float = struct.field(pytree_node=False, default=0.0)
    """What is added to A x."""

    def linear(self, measured: Float[Array, "b *m"]) -> Float[Array, "b *m"]:
        """Return A x and its noise, of measurements."""
        return self.operator.seen(measured - self.offset)

    def apply(self, x: Float[Array, "b *s"], keys: Key[Array, " b"]) -> Float[Array, "b *m"]:
        """Damage pictures; the noise of each is drawn from its own key."""
        whole = self.operator.forward(x) + self.offset
        eps = jax.vmap(lambda key: jax.random.normal(key, whole.shape[1:], whole.dtype))(keys)
        return self.operator.seen(whole + self.noise * eps)

    def residual(self, x: Float[Array, "b *s"], measured: Float[Array, "n *m"]) -> Float[Array, "b *m"]:
        """Return y - (A x + offset) where something was measured, and 0 elsewhere."""
        return self.operator.seen(measured - self.offset - self.operator.forward(x))

    def steepest(self, x: Float[Array, "b *s"]) -> Float[Array, " b"]:
        """Return about how much faster the residual can change than pictures like these, for each row."""
        return norm(self.operator, x) if isinstance(self.operator, Operator) else self.operator.steepest(x)

    def mismatch(self, x: Float[Array, "b *s"], measured: Float[Array, "b *m"]) -> Float[Array, " b"]:
        """Return ‖A x + offset - y‖ / √m, of m numbers that were measured: near the noise for a good restoration."""
        off = self.residual(x, measured)
        squares = jnp.square(off).sum(tuple(range(1, off.ndim)))
        return jnp.sqrt(squares / max(1, count(self.operator, x.shape[1:])))


@struct.dataclass
class Rounded:
    """What is measured of a picture, rounded: any residual within half a step is as likely as any other.

    That is no Gaussian, and only `draws` takes it; `Damage` with noise of step / √12 is the Gaussian nearest to it.
    """

    operator: Any
    """An `Operator`."""
    half: float = struct.field(pytree_node=False)
    """Half a step."""
    noise: float = struct.field(pytree_node=False)
    """Deviation of a Gaussian by which the likelihood falls outside, such as a tenth of `half`."""

    def residual(self, x: Float[Array, "b *s"], measured: Float[Array, "n *m"]) -> Float[Array, "b *m"]:
        """Return by how much A x lies outside the steps that were measured."""
        off = self.operator.seen(measured - self.operator.forward(x))
        return off - jnp.clip(off, -self.half, self.half)

    def steepest(self, x: Float[Array, "b *s"]) -> Float[Array, " b"]:
        """Return about how much faster the residual can change than pictures like these, for each row."""
        return norm(self.operator, x)


def quantised(levels: int) -> Damage:
    """Rounding of [-1, 1] to so many evenly spaced values, both ends among them, as noise of a step / √12.

    Raises UserError for less than 2.
    """
    if levels < 2:
        raise UserError(f"pictures are rounded to {levels} level(s); it must be 2 or more")
    return Damage(operator=Scale(by=1.0), noise=2 / (levels - 1) / math.sqrt(12))


def old_photograph(
    keep: Any = None,
    *,
    gain: float = 1.0,
    lift: float = 0.0,
    blur: float = 0.0,
    noise: float = 0.0,
    border: Border = "wrap",
) -> Damage:
    """Blur, then fading to gain · x + lift, then noise, then scratches, which leave nothing.

    `keep`, f32[n *s] as of `Mask`, is 0 where scratches are; `lift` and `noise` are in the units of [0, 1], where
    gain · x + lift is what fading makes of a value x; `blur` is in pixels, and `border` as of `Blur`.
    """
    parts: list[Operator] = [*([Blur(sigma=blur, border=border)] if blur else []), Scale(by=gain)]
    parts += [] if keep is None else [Mask(keep=keep)]
    # With x = 2 u - 1: 2 (gain u + lift) - 1 = gain x + (gain + 2 lift - 1).
    return Damage(operator=Composed(parts=tuple(parts)), noise=2 * noise, offset=gain + 2 * lift - 1)
