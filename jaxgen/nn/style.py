"""What StyleGAN2's generator and discriminator share (arXiv:1912.04958): the mapping network, and the maps' sizes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.equalized import EqualizedDense, leaky
from jaxgen.nn.lowest import lowest_map


def maps(height: int, width: int) -> tuple[list[int], tuple[int, int]]:
    """Return the sides 4, 8, 16, … that the maps of an image would have in a square, and the smallest map's own size.

    Raises UserError unless both sides can be halved until the shorter one is 4..7 pixels.
    """
    halvings, lowest = lowest_map(height, width, "stylegan2")
    return [4 * 2**level for level in range(halvings + 1)], lowest


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
