"""JPEG as damage: linear up to the rounding of its coefficients, which is noise of known spread.

A picture is turned to luma and chroma (JFIF), chroma is averaged where it is subsampled, and of each block of 8×8 an
orthonormal DCT is taken; each coefficient is then rounded to a step of its own. Rounding to a step q is an error within
±q/2, of variance q²/12 (ITU-T T.81; libjpeg's tables and borders).
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.restoration.separable import both

Subsampling = Literal["4:4:4", "4:2:0"]
Halving = Callable[[int, int], np.ndarray]

SIDE = 8
LEVEL = 2 / 255  # of 8 bits, in the units of [-1, 1]
# T.81, tables K.1 and K.2.
LUMA = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
CHROMA = np.full((SIDE, SIDE), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF's luma and chroma of red, green and blue, a row each.
JFIF = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]])


@struct.dataclass
class Jpeg:
    """DCT coefficients of a picture's blocks, each over the deviation of its rounding: noise of 1 stands for JPEG.

    What is measured is f32[b m], plane after plane. Where 8 (16, for chroma of 4:2:0) does not divide a side, a file's
    last blocks hold more than a decoded picture shows of them, and what `measured` says of these is less sure.
    """

    luma: Any
    """f32[8 8]: the steps of luma, or of grey, in levels of 8 bits; frequencies rise downwards and to the right."""
    size: tuple[int, int] = struct.field(pytree_node=False)
    """Height and width of the picture."""
    chroma: Any = None
    """f32[8 8]: the steps of both planes of chroma; None for grey pictures."""
    subsampling: Subsampling = struct.field(pytree_node=False, default="4:2:0")
    """4:4:4 for chroma as fine as luma, 4:2:0 for sides half as long."""

    @classmethod
    def of_quality(
        cls, quality: int, channels: int, size: tuple[int, int], subsampling: Subsampling = "4:2:0"
    ) -> "Jpeg":
        """Return JPEG of a quality in 1..100 as libjpeg scales its tables, for pictures of 1 or 3 channels.

        Raises UserError for other qualities and channels.
        """
        if not 1 <= quality <= 100:
            raise UserError(f"JPEG's quality is {quality}; it is a whole number in 1..100")
        if channels not in (1, 3):
            raise UserError(f"JPEG has pictures of 1 or 3 channels, not of {channels}")
        chroma = None if channels == 1 else _steps(CHROMA, quality)
        return cls(luma=_steps(LUMA, quality), size=size, chroma=chroma, subsampling=subsampling)

    @property
    def channels(self) -> int:
        return 1 if self.chroma is None else 3

    def measures(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if tuple(shape) != (*self.size, self.channels):
            wanted, got = ("×".join(map(str, sides)) for sides in ((*self.size, self.channels), shape))
            raise UserError(f"this JPEG is of pictures of {wanted}, and the picture is {got}")
        return (sum(len(rows) * len(columns) for rows, columns in self._transforms(_halving)),)

    def forward(self, x: Float[Array, "b h w c"]) -> Float[Array, "b m"]:
        return self._taken(x, _halving)

    def adjoint(self, y: Float[Array, "b m"]) -> Float[Array, "b h w c"]:
        planes, at = [], 0
        for i, (rows, columns) in enumerate(self._transforms(_halving)):
            coefficients = y[:, at : at + len(rows) * len(columns)].reshape(-1, len(rows), len(columns))
            at += len(rows) * len(columns)
            planes.append(_apply(coefficients / self._deviations(i, coefficients), rows.T, columns.T))
        return self._mixed(jnp.stack(planes, -1), JFIF.T)

    def seen(self, y: Float[Array, "b m"]) -> Float[Array, "b m"]:
        return y

    def measured(self, decoded: Float[Array, "b h w c"]) -> Float[Array, "b m"]:
        """Return what a file says of its picture, given the picture in [-1, 1] that it was decoded to.

        The coefficients lie on the grid of the steps but for what 8 bits and clipping took. Where chroma was
        subsampled, decoders smooth it as they enlarge it (libjpeg's "fancy upsampling"); that is undone.
        """
        return self._taken(decoded, _unsmoothing)

    def encoded(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """Return what pictures look like after JPEG, in [-1, 1]; gradients pass where values are rounded.

        As libjpeg does it but for the last rounding to 8 bits: planes are whole levels, and so are means of chroma,
        where a half goes down and up in turn, and chroma is smoothed as it is enlarged.
        """
        height, width = self.size
        levels = self._mixed((jnp.clip(x, -1, 1) + 1) / LEVEL, JFIF)
        planes = []
        for i in range(self.channels):
            plane = _rounded(levels[..., i] - (0.0 if i else 128.0))
            if self._halved(i):
                plane = _apply(plane, _halving(height, _half(height)), _halving(width, _whole_blocks(_half(width))))
                plane = _rounded(plane + jnp.where(jnp.arange(plane.shape[2]) % 2, 1 / 8, -1 / 8)[None, None])
            rows, columns = (_blocks(n) for n in plane.shape[1:])
            coefficients = _apply(plane, rows, columns)
            steps = self._deviations(i, coefficients) * (12**0.5 / LEVEL)
            kept = steps * _rounded(coefficients / steps)
            plane = jnp.clip(_rounded(_apply(kept, *(_unblocked(len(each)) for each in (rows, columns)))), -128, 127)
            if self._halved(i):
                plane = _rounded(_apply(plane[:, : _half(height), : _half(width)], _doubling(height), _doubling(width)))
            planes.append(plane[:, :height, :width] + (0.0 if i else 128.0))
        return jnp.clip(self._mixed(jnp.stack(planes, -1), np.linalg.inv(JFIF)) * LEVEL - 1, -1, 1)

    def _halved(self, plane: int) -> bool:
        return plane > 0 and self.subsampling == "4:2:0"

    def _mixed(self, x: Float[Array, "b h w c"], matrix: np.ndarray) -> Float[Array, "b h w c"]:
        """Multiply the three channels of each pixel by a matrix; grey stays as it is."""
        if self.chroma is None:
            return x
        return jnp.einsum("bhwc,dc->bhwd", x, jnp.asarray(matrix, x.dtype), precision="highest")

    def _taken(self, x: Float[Array, "b h w c"], halving: Halving) -> Float[Array, "b m"]:
        mixed = self._mixed(x, JFIF)
        planes = [_apply(mixed[..., i], *sides) for i, sides in enumerate(self._transforms(halving))]
        scaled = [plane / self._deviations(i, plane) for i, plane in enumerate(planes)]
        return jnp.concatenate([plane.reshape(len(plane), -1) for plane in scaled], 1)

    def _transforms(self, halving: Halving) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, for each plane, the matrices from the picture's rows and columns to those of coefficients."""
        (height, width), half = self.size, _half(self.size[0])
        # As libjpeg does: columns go on as the picture's last one, and rows as the last mean.
        columns = _blocks(_whole_blocks(_half(width))) @ halving(width, _whole_blocks(_half(width)))
        halved = _blocks(half) @ halving(height, half), columns
        whole = _blocks(height), _blocks(width)
        return [halved if self._halved(i) else whole for i in range(self.channels)]

    def _deviations(self, plane: int, like: Float[Array, "b i j"]) -> Float[Array, "1 i j"]:
        """Return the standard deviations of a plane's rounded coefficients."""
        steps = jnp.asarray(self.chroma if plane else self.luma, like.dtype) * (LEVEL / 12**0.5)
        return jnp.tile(steps, (like.shape[1] // SIDE, like.shape[2] // SIDE))[None]


def _steps(table: np.ndarray, quality: int) -> Float[np.ndarray, "8 8"]:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((table * percent + 50) // 100, 1, 255).astype(np.float32)


def _apply(plane: Float[Array, "b h w"], rows: np.ndarray, columns: np.ndarray) -> Float[Array, "b i j"]:
    return both(plane[..., None], rows, columns)[..., 0]


@jax.custom_jvp
def _rounded(x: Array) -> Array:
    """Round to whole numbers, halves away from 0, of which f32 is sure to 2e-4; the derivative is that of x itself."""
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + (0.5 + 2e-4))


_rounded.defjvps(lambda tangent, rounded, x: tangent)


def _half(n: int) -> int:
    return (n + 1) // 2


def _whole_blocks(n: int) -> int:
    return -(-n // SIDE) * SIDE


@functools.lru_cache(256)
def _blocks(n: int) -> Float[np.ndarray, "m n"]:
    """Return the orthonormal DCT of each 8 of n values, the last one repeated where 8 does not divide n."""
    m = _whole_blocks(n)
    return _unblocked(m).T @ np.eye(n)[np.minimum(np.arange(m), n - 1)]


@functools.lru_cache(256)
def _unblocked(m: int) -> Float[np.ndarray, "m m"]:
    k, at = np.arange(SIDE)[:, None], np.arange(SIDE)[None, :]
    waves = np.cos(np.pi * (2 * at + 1) * k / (2 * SIDE)) * np.where(k, np.sqrt(2 / SIDE), np.sqrt(1 / SIDE))
    return np.kron(np.eye(m // SIDE), waves.T)


def _halving(n: int, m: int) -> Float[np.ndarray, "m n"]:
    """Return the means of two of n values, m of them; the last value goes on."""
    rows = np.eye(n)
    return (rows[np.minimum(2 * np.arange(m), n - 1)] + rows[np.minimum(2 * np.arange(m) + 1, n - 1)]) / 2


def _doubling(n: int) -> Float[np.ndarray, "n half"]:
    """Return libjpeg's enlargement to n values: three quarters of the nearer and a quarter of the farther value."""
    half = _half(n)
    rows, near = np.eye(half), np.arange(n) // 2
    far = np.clip(near + np.where(np.arange(n) % 2, 1, -1), 0, half - 1)
    return 0.75 * rows[near] + 0.25 * rows[far]


@functools.lru_cache(256)
def _unsmoothing(n: int, m: int) -> Float[np.ndarray, "m n"]:
    """Return the m values that `_doubling` made n of, the last one repeated: means of two, without the smoothing."""
    half = _half(n)
    sharp = np.linalg.solve(_halving(n, half) @ _doubling(n), _halving(n, half))
    return sharp[np.minimum(np.arange(m), half - 1)]
