"""Convolutions whose kernel each sample scales for itself by its style (StyleGAN2, arXiv:1912.04958, section 2.2).

A sample's kernel is kernel[..., i, o]·style[i]·gain[o]. Scaling it, and scaling the input and the output of a shared
kernel, are the same thing. Nets here do the latter: the kernel stays one, a batch split over devices stays
split, and XLA merges the scaling with what is next to it. The former keeps b kernels in memory and needs a grouped
convolution, which XLA on the CPU runs many times slower; on a GPU it can be worth it for few samples at a time.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.equalized import DIMENSIONS
from jaxgen.nn.upfirdn import blur_kernel, upfirdn2d


def convolve(
    x: Float[Array, "b h w _"], kernel: Float[Array, "k k _ _"], *, up: int = 1
) -> Float[Array, "b {up}*h {up}*w _"]:
    """Convolve with zeros around the map; with `up` > 1 zeros are put between its pixels too, and it is blurred after.

    Then the kernel is flipped: only so do XLA and cuDNN see a transposed convolution, which skips the zeros between.
    """
    size = len(kernel)
    margin = size // 2 if up == 1 else size - 1
    y = jax.lax.conv_general_dilated(
        x,
        kernel if up == 1 else kernel[::-1, ::-1],
        window_strides=(1, 1),
        padding=((margin, margin), (margin, margin)),
        lhs_dilation=(up, up),
        dimension_numbers=DIMENSIONS,
    )
    if up == 1:
        return y
    blur = blur_kernel()
    # The padding of blur and kernel in one, less what the convolution above has used.
    near = size // 2 + (len(blur) + up - 1) // 2 - (size - 1)
    far = size // 2 + (len(blur) - up) // 2 - (size - up)
    return upfirdn2d(y, blur, pad=(near, far, near, far), gain=float(up**2))


def demodulation(kernel: Float[Array, "k k i o"], style: Float[Array, "b i"]) -> Float[Array, "b o"]:
    """Return the gain that gives each output unit variance where inputs are independent and have it (equation 3)."""
    # Σ (kernel·style)² over inputs is a product of squares, so that no sample's kernel has to be made.
    return jax.lax.rsqrt(jnp.square(style) @ jnp.square(kernel).sum((0, 1)) + 1e-8)


def modulated_conv(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "k k i o"],
    style: Float[Array, "b i"],
    gain: Float[Array, "b o"] | None = None,
    *,
    up: int = 1,
) -> Float[Array, "b {up}*h {up}*w o"]:
    """Convolve each sample with its own kernel by scaling the maps; style, kernel and gain are taken in x's type."""
    y = convolve(x * style.astype(x.dtype)[:, None, None], kernel.astype(x.dtype), up=up)
    return y if gain is None else y * gain.astype(y.dtype)[:, None, None]
