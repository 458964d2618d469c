"""Learned upsampling: a transposed convolution that starts as bilinear interpolation."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.typing import Precision


def bilinear(key: PRNGKeyArray, shape: tuple[int, int, int, int]) -> Float[Array, "k k i o"]:
    """Fill a kernel of shape (2f, 2f, i, o) with bilinear interpolation by f, each channel onto itself.

    The weight at distance d from the kernel's middle is 1 - |d| / f per axis: half-pixel interpolation
    ("align_corners=False") away from the border. An initialiser by its form; it does not use `key`.
    """
    del key
    k, _, inputs, outputs = shape
    tent = 1.0 - jnp.abs((jnp.arange(k) + 0.5) / (k / 2) - 1.0)
    square = tent[:, None] * tent[None, :]
    return square[:, :, None, None] * jnp.eye(inputs, outputs)[None, None]


def transposed_convolution(x: Float[Array, "b h w i"], kernel: Float[Array, "k k i o"]) -> Float[Array, "b h2 w2 o"]:
    """Convolve transposed with stride f = k / 2, nothing cropped: a side of n becomes (n + 1) f.

    Cell p adds kernel * x[p] to the rows p f … p f + k - 1 of the output, so each f × f block of the output is a
    linear map of 2 × 2 cells, and the whole one matrix product: many times as fast on CPU, forward and backward, as
    a convolution over the input spread out with zeros.
    """
    b, h, w, i = x.shape
    f, o = kernel.shape[0] // 2, kernel.shape[-1]
    edged = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # The kernel's rows a f … a f + f - 1 act from the cell a rows above the block; columns likewise.
    cells = jnp.concatenate([edged[:, 1 - r : h + 2 - r, 1 - c : w + 2 - c] for r in (0, 1) for c in (0, 1)], axis=-1)
    weights = kernel.reshape(2, f, 2, f, i, o).transpose(0, 2, 4, 1, 3, 5).reshape(4 * i, f * f * o)
    blocks = (cells @ weights).reshape(b, h + 1, w + 1, f, f, o)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h + 1) * f, (w + 1) * f, o)


class Deconvolution(nn.Module):
    """Upsample [b h w c] by `factor` with a learned kernel [2f 2f c c], bilinear at first; no bias, nothing cropped.

    A full kernel lets each class' score reshape every other's, as in FCN (arXiv:1605.06211, section 3.3).
    """

    factor: int
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        k, c = 2 * self.factor, x.shape[-1]
        kernel = self.param("kernel", bilinear, (k, k, c, c))
        return transposed_convolution(x.astype(self.dtype), kernel.astype(self.dtype))
