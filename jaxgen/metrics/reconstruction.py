"""How near an image is to another: PSNR and SSIM, a number for each image.

Both are defined on 8-bit images, with levels 0 to 255: images in [-1, 1] are rounded to them first.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.errors import UserError

# Shares of red, green and blue, in levels, in the luma of BT.601's studio swing, 16 for black to 235 for white.
LUMA, BLACK = np.array([65.481, 128.553, 24.966], np.float32) / 255.0, 16.0
WINDOW, DEVIATION = 11, 1.5  # of SSIM's Gaussian window (its section III-C), in pixels
PEAK = 255.0


def to_levels(image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Round images in [-1, 1] to the levels 0 to 255 that a file holds; what is outside is clipped."""
    return jnp.clip(jnp.floor(image * 127.5 + 128.0), 0.0, PEAK)


def psnr(image: Float[Array, "b h w c"], other: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """Return the peak signal-to-noise ratio in dB: 10·log10(255² / mean squared error of all channels' levels).

    Equal images count as if one value were off by one level, so that a mean over images stays finite.
    """
    return _decibel(to_levels(image), to_levels(other))


def luma_levels(image: Float[Array, "b h w c"], border: int) -> Float[Array, "b _ _ 1"]:
    """Return Y of BT.601 of images rounded to levels, less `border` pixels at each side: what benchmarks measure.

    Grey images are their own luma. Raises UserError where the border leaves nothing.
    """
    _, h, w, c = image.shape
    if 2 * border >= min(h, w):
        raise UserError(f"a border of {border} pixels leaves nothing of images of {h}×{w}")
    levels = to_levels(image[:, border : h - border, border : w - border])
    return levels[..., :1] if c < 3 else (levels[..., :3] @ LUMA)[..., None] + BLACK


def psnr_y(image: Float[Array, "b h w c"], other: Float[Array, "b h w c"], border: int) -> Float[Array, " b"]:
    """Return PSNR in dB as benchmarks of super-resolution do: of Y alone, inside a border of as many pixels as `scale`.

    It is about 1.5 dB above that of all channels, and no number of the one kind can be held against one of the other.
    """
    return _decibel(luma_levels(image, border), luma_levels(other, border))


def _decibel(levels: Float[Array, "b h w c"], others: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    error = jnp.square(levels - others).mean((1, 2, 3))
    least = 1.0 / np.prod(levels.shape[1:])
    return 10.0 * jnp.log10(PEAK**2 / jnp.maximum(error, least))


def measures_ssim(shape: tuple[int, ...]) -> bool:
    """Say whether an image of this shape holds a window of SSIM."""
    return min(shape[:2]) >= WINDOW


def ssim(image: Float[Array, "b h w c"], other: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    """Return the structural similarity, 1 for equal images, averaged over channels and all windows inside the image.

    Wang et al., IEEE Transactions on Image Processing 13(4), 2004: Gaussian windows of 11×11 with a deviation of 1.5,
    variances of the population, K1 = 0.01, K2 = 0.03. Raises UserError for images of less than 11×11.
    """
    if not measures_ssim(image.shape[1:]):
        size = "×".join(map(str, image.shape[1:3]))
        raise UserError(f"SSIM looks at windows of {WINDOW}×{WINDOW}; images of {size} have none")
    return _similarity(to_levels(image), to_levels(other))


def ssim_y(image: Float[Array, "b h w c"], other: Float[Array, "b h w c"], border: int) -> Float[Array, " b"]:
    """Return SSIM of Y alone, inside a border, as benchmarks of super-resolution do; see `psnr_y` and `ssim`."""
    return _similarity(luma_levels(image, border), luma_levels(other, border))


def _similarity(x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]) -> Float[Array, " b"]:
    x_mean, y_mean = _blurred(x), _blurred(y)
    x_var, y_var = _blurred(x * x) - x_mean**2, _blurred(y * y) - y_mean**2
    both = _blurred(x * y) - x_mean * y_mean
    c1, c2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
    similar = (2 * x_mean * y_mean + c1) * (2 * both + c2)
    return (similar / ((x_mean**2 + y_mean**2 + c1) * (x_var + y_var + c2))).mean((1, 2, 3))


def _blurred(x: Float[Array, "b h w c"]) -> Float[Array, "b _ _ c"]:
    """Average windows by Gaussian weights, along one axis after the other."""
    distance = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (distance / DEVIATION) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        n = x.shape[axis] - WINDOW + 1
        parts = [float(w) * jax.lax.slice_in_dim(x, i, i + n, axis=axis) for i, w in enumerate(weights)]
        x = sum(parts[1:], parts[0])
    return x
