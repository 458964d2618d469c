"""Zero-insertion, filtering and decimation of maps: how StyleGAN2 and its successors resize (arXiv:1912.04958)."""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jaxgen.errors import UserError


def blur_kernel(taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)) -> Float[Array, "{len(taps)} {len(taps)}"]:
    """Make the separable low-pass kernel of these taps, which sums to 1. Raises UserError if the taps sum to 0."""
    if not sum(taps):
        raise UserError(f"blur_kernel: the taps {taps} sum to 0, and so cannot be scaled to 1")
    row = jnp.array(taps, jnp.float32) / sum(taps)
    return jnp.outer(row, row)


def upfirdn2d(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw"],
    *,
    up: int = 1,
    down: int = 1,
    pad: tuple[int, int, int, int] = (0, 0, 0, 0),
    gain: float = 1.0,
) -> Float[Array, "b _ _ c"]:
    """Put up - 1 zeros after each pixel, pad, convolve each channel with `kernel`, and keep every `down`-th pixel.

    `pad` is (left, right, top, bottom), in pixels of the enlarged map; negative numbers crop. It is a true convolution,
    the kernel flipped. The result has (h·up + top + bottom - kh) // down + 1 rows, and x's type; it is computed in it.
    """
    b, h, w, c = x.shape
    left, right, top, bottom = pad
    # Each channel becomes an image of its own. A depthwise convolution (feature_group_count) is the same, but on CPU
    # XLA runs it three to six times slower where it dilates, as does the gradient of a stride; else both are alike.
    images = jnp.moveaxis(x, 3, 1).reshape(b * c, h, w, 1)
    y = lax.conv_general_dilated(
        images,
        (gain * kernel)[::-1, ::-1, None, None].astype(x.dtype),
        window_strides=(down, down),
        # XLA's dilation puts zeros between pixels, none after the last.
        padding=((top, bottom + up - 1), (left, right + up - 1)),
        lhs_dilation=(up, up),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jnp.moveaxis(y.reshape(b, c, *y.shape[1:3]), 1, 3)


def upsample2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw"], factor: int = 2, gain: float = 1.0
) -> Float[Array, "b {factor}*h {factor}*w c"]:
    """Enlarge the map `factor` times, with zeros around it; a kernel that sums to 1 keeps a constant map as it is."""
    kh, kw = kernel.shape
    pad = ((kw + factor - 1) // 2, (kw - factor) // 2, (kh + factor - 1) // 2, (kh - factor) // 2)
    return upfirdn2d(x, kernel, up=factor, pad=pad, gain=gain * factor**2)


def downsample2d(
    x: Float[Array, "b h w c"], kernel: Float[Array, "kh kw"], factor: int = 2, gain: float = 1.0
) -> Float[Array, "b h//{factor} w//{factor} c"]:
    """Shrink the map `factor` times, with zeros around it; height and width are multiples of `factor`."""
    kh, kw = kernel.shape
    pad = ((kw - factor + 1) // 2, (kw - factor) // 2, (kh - factor + 1) // 2, (kh - factor) // 2)
    return upfirdn2d(x, kernel, down=factor, pad=pad, gain=gain)
