"""Motion blur: while the shutter was open the camera moved along a line."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.restoration.separable import Border


@struct.dataclass
class Motion:
    """The mean of each channel along a straight line through each pixel, between pixels interpolated bilinearly."""

    length: float = struct.field(pytree_node=False)
    """Of the line, in pixels."""
    angle: float = struct.field(pytree_node=False, default=0.0)
    """Of the line, in degrees: 0 is level, 90 upright, and 45 rises to the right."""
    border: Border = struct.field(pytree_node=False, default="wrap")
    """What lies beyond: the other side, "wrap", or the picture mirrored."""

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3:
            raise UserError(f"Motion acts on pictures, not on arrays of {len(shape)} axes")
        if not 0 < self.length < math.inf:
            raise UserError(f"a motion's length is a number of pixels above 0; got {self.length:g}")
        if not math.isfinite(self.angle):
            raise UserError(f"a motion's angle is a number of degrees; got {self.angle:g}")
        if self.length > min(shape[:2]):
            raise UserError(
                f"a motion of {self.length:g} pixels leaves nothing of a picture of {shape[0]}×{shape[1]}; give a "
                "length below its sides"
            )
        return shape

    def forward(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        height, width = x.shape[1:3]
        if self.border == "mirror":  # which repeats after twice the sides
            x = jnp.concatenate([x, x[:, ::-1]], 1)
            x = jnp.concatenate([x, x[:, :, ::-1]], 2)
        sides = x.shape[1], x.shape[2]
        passed = jnp.asarray(_passed(self.length, self.angle, sides), x.dtype)[None, :, :, None]
        return jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(1, 2)) * passed, sides, axes=(1, 2))[:, :height, :width]

    def adjoint(self, y: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return jax.linear_transpose(self.forward, y)(y)[0]

    def seen(self, y: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        return y


def line(length: float, angle: float) -> Float[np.ndarray, "k k"]:
    """Return the weights, of sum 1, of the pixels around the middle one in the mean along a line."""
    across, up = length / 2 * math.cos(math.radians(angle)), length / 2 * math.sin(math.radians(angle))
    reach = math.ceil(max(abs(across), abs(up))) + 1
    whole = np.arange(-reach, reach + 1)
    # Between places where the line crosses a row or a column, weights are polynomials of order 2.
    crossed = [whole / side for side in (across, up) if abs(side) > 1e-9]
    cuts = np.unique(np.clip(np.concatenate([[-1.0, 1.0], *crossed]), -1, 1))
    middles, halves = (cuts[1:] + cuts[:-1]) / 2, np.diff(cuts) / 2
    nodes, shares = np.polynomial.legendre.leggauss(2)  # exact up to order 3
    t = (middles[:, None] + halves[:, None] * nodes).ravel()
    weights = (halves[:, None] * shares).ravel() / 2
    rows = np.maximum(0, 1 - np.abs(whole[:, None] + up * t))  # rows are counted downwards
    columns = np.maximum(0, 1 - np.abs(whole[:, None] - across * t))
    return np.einsum("it,jt,t->ij", rows, columns, weights)


@functools.lru_cache(64)
def _passed(length: float, angle: float, sides: tuple[int, int]) -> Float[np.ndarray, "h k"]:
    """Return the share of each frequency that is left: real, as a line looks the same from both its ends."""
    kernel = line(length, angle)
    away = np.arange(len(kernel)) - len(kernel) // 2
    folded = np.zeros(sides)
    np.add.at(folded, (away[:, None] % sides[0], away[None, :] % sides[1]), kernel)
    return np.fft.rfft2(folded).real
