"""What StyleGAN2's generator and discriminator share (arXiv:1912.04958): the mapping network, and the maps' sides."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn.equalized import EqualizedDense, leaky


def sides(side: int) -> list[int]:
    """Return the sides of the maps from 4 to `side`; raise UserError unless `side` is 4 times a power of two."""
    if side < 4 or side & (side - 1):
        near = 4 * 2 ** max(0, round(math.log2(max(side, 1) / 4)))
        raise UserError(f"stylegan2: a side of {side} pixels is not 4 times a power of two; {near} is the nearest")
    return [2**k for k in range(2, side.bit_length())]


def _unit(x: Float[Array, "b n"]) -> Float[Array, "b n"]:
    return x * jax.lax.rsqrt(jnp.square(x).mean(1, keepdims=True) + 1e-8)


class Mapping(nn.Module):
    """Map z and class weights, or one of both, to one style for each sample; all of it in float32."""

    layers: int
    size: int
    """Length of a style, of the layers between, and of a class' embedding."""
    classes: int

    @nn.compact
    def __call__(
        self, z: Float[Array, "b z"] | None, label: Float[Array, "b n"] | None
    ) -> Float[Array, "b {self.size}"]:
        parts = [] if z is None else [_unit(z)]
        if label is not None:
            parts.append(_unit(EqualizedDense(self.size, name="embed")(label[:, :-1])))
        x = jnp.concatenate(parts, axis=1)
        for i in range(self.layers):
            x = leaky(EqualizedDense(self.size, rate=0.01, name=f"layer{i}")(x))
        return x
