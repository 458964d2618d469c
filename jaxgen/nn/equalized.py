"""Layers with an equalised learning rate (arXiv:1710.10196, section 4.1), as StyleGAN and its successors use them.

Weights start as standard normal numbers and are scaled at run time by 1 / √fan_in. So Adam, whose steps do not depend
on a gradient's size, moves every layer by the same share of its dynamic range.
"""

import math

import flax.linen as nn
import jax
from jaxtyping import Array, Float

from jaxgen.nn.upfirdn import blur_kernel, upfirdn2d
from jaxgen.typing import Precision

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def leaky(x: Float[Array, "*s"], gain: float = math.sqrt(2.0)) -> Float[Array, "*s"]:
    """Leaky ReLU of slope 0.2, times `gain`; √2 keeps the mean square of a standard normal x to within 4 %."""
    return nn.leaky_relu(x, 0.2) * gain


class EqualizedDense(nn.Module):
    """Linear map in float32."""

    features: int
    rate: float = 1.0
    """Learning rate of this layer over that of the others."""
    start: float = 0.0
    """Initial bias, before `rate` multiplies it."""

    @nn.compact
    def __call__(self, x: Float[Array, "b i"]) -> Float[Array, "b o"]:
        kernel = self.param("kernel", nn.initializers.normal(1.0 / self.rate), (x.shape[1], self.features))
        bias = self.param("bias", nn.initializers.constant(self.start), (self.features,))
        return x @ (kernel * (self.rate / math.sqrt(x.shape[1]))) + (bias * self.rate)[None]


class EqualizedConv(nn.Module):
    """Convolution with zeros around the map, which it may halve: then the map is blurred first."""

    features: int
    size: int = 3
    """Height and width of the kernel; odd."""
    down: int = 1
    """How many times smaller the map gets in height and width."""
    use_bias: bool = True
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b _ _ i"]) -> Float[Array, "b _ _ o"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.normal(1.0), shape)
        kernel = (kernel / math.sqrt(math.prod(shape[:3]))).astype(self.dtype)
        x, stride, margin = x.astype(self.dtype), 1, self.size // 2
        if self.down > 1:
            blur = blur_kernel()
            near, far = margin + (len(blur) - self.down + 1) // 2, margin + (len(blur) - self.down) // 2
            # All zeros go around the map before the blur. A 1×1 kernel reads only every `down`-th pixel: blur those.
            stride, margin = (1 if self.size == 1 else self.down), 0
            x = upfirdn2d(x, blur, down=self.down // stride, pad=(near, far, near, far))
        x = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), ((margin, margin), (margin, margin)), dimension_numbers=DIMENSIONS
        )
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)[None, None, None]
        return x
