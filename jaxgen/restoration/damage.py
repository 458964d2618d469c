"""How a picture was damaged: y = A x + offset + noise, in the units of [-1, 1]."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Key

from jaxgen.restoration.operators import Composed, Mask, Operator, Scale, count
from jaxgen.restoration.separable import Blur


@struct.dataclass
class Damage:
    """A linear operator, then a number added to all, then noise."""

    operator: Any
    """What is measured of a picture: an `Operator`."""
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

    def mismatch(self, x: Float[Array, "b *s"], measured: Float[Array, "b *m"]) -> Float[Array, " b"]:
        """Return ‖A x + offset - y‖ / √m, of m numbers that were measured: near the noise for a good restoration."""
        off = self.linear(measured) - self.operator.forward(x)
        squares = jnp.square(off).sum(tuple(range(1, off.ndim)))
        return jnp.sqrt(squares / max(1, count(self.operator, x.shape[1:])))


def old_photograph(
    keep: Any = None,
    *,
    gain: float = 1.0,
    lift: float = 0.0,
    blur: float = 0.0,
    noise: float = 0.0,
) -> Damage:
    """Blur, then fading to gain · x + lift, then noise, then scratches, which leave nothing.

    `keep`, f32[n *s] as of `Mask`, is 0 where scratches are; `lift` and `noise` are in the units of [0, 1], where
    gain · x + lift is what fading makes of a value x; `blur` is in pixels.
    """
    parts: list[Operator] = [*([Blur(sigma=blur)] if blur else []), Scale(by=gain)]
    parts += [] if keep is None else [Mask(keep=keep)]
    # With x = 2 u - 1: 2 (gain u + lift) - 1 = gain x + (gain + 2 lift - 1).
    return Damage(operator=Composed(parts=tuple(parts)), noise=2 * noise, offset=gain + 2 * lift - 1)
