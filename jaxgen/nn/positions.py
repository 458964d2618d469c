"""Where a patch lies in its image, as fixed sines and cosines: added to its token, or turning queries and keys."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class SinCos:
    """Fixed sines and cosines of a patch's column, then of its row, added to its token."""

    side: int | None = None
    """Rows and columns of the grid trained on: those of any other are scaled to span the same 0 to `side`, so that no
    position is new to the net. None: positions are counted in patches at any size."""

    def table(self, rows: int, columns: int, width: int) -> np.ndarray:
        """Return f32[rows·columns width]; raise UserError unless `width` is a multiple of 4."""
        return _sines(*_grid(rows, columns, self.side), width)


@dataclasses.dataclass(frozen=True)
class CentredSinCos:
    """`SinCos` of a part of a large grid around its centre, so that images of all sizes share their middle.

    This is how Stable Diffusion 3 places patches (arXiv:2403.03206, section 5.3.2).
    """

    largest: int = 192
    """Rows and columns of the large grid."""
    side: int = 64
    """Its positions span 0 to `side`."""

    def table(self, rows: int, columns: int, width: int) -> np.ndarray:
        """Return f32[rows·columns width]; raise UserError for a larger grid, or a width that is no multiple of 4."""
        if max(rows, columns) > self.largest:
            raise UserError(
                f"positions: {rows} × {columns} patches are more than the {self.largest} × {self.largest} of "
                "CentredSinCos; raise its `largest`, or take SinCos"
            )
        row, column = _grid(self.largest, self.largest, self.side)
        top, left = (self.largest - rows) // 2, (self.largest - columns) // 2
        cut = (slice(top, top + rows), slice(left, left + columns))
        square = (self.largest, self.largest)
        return _sines(row.reshape(square)[cut].reshape(-1), column.reshape(square)[cut].reshape(-1), width)


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary embedding in two dimensions: pairs of a head's channels turn by the row, the other half by the column.

    So a product of query and key depends on the patches' difference alone (arXiv:2104.09864; over two axes as in
    EVA-02, arXiv:2303.11331).
    """

    side: int | None = None
    """As in SinCos."""
    theta: float = 10_000.0
    """The slowest turn takes nearly 2π·theta patches, the fastest 2π."""

    def angles(self, rows: int, columns: int, head: int) -> np.ndarray:
        """Return f32[rows·columns head/2], an angle a pair; raise UserError unless `head` is a multiple of 4."""
        if head % 4:
            raise UserError(f"positions: rotating by two axes needs width / heads to be a multiple of 4, not {head}")
        frequency = self.theta ** (-np.arange(head // 4) / (head // 4))
        positions = _grid(rows, columns, self.side)
        return np.concatenate([np.outer(p, frequency) for p in positions], axis=1).astype(np.float32)


def _sines(row: np.ndarray, column: np.ndarray, width: int) -> np.ndarray:
    if width % 4:
        raise UserError(f"positions: sines and cosines of two axes need a width that is a multiple of 4, not {width}")
    frequency = 10_000.0 ** (-np.arange(width // 4) / (width // 4))
    angles = [np.outer(position, frequency) for position in (column, row)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


def _grid(rows: int, columns: int, side: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows f64[n] and the columns f64[n] of all patches, row by row."""
    y, x = (np.arange(n) * (1.0 if side is None else side / n) for n in (rows, columns))
    row, column = np.meshgrid(y, x, indexing="ij")
    return row.reshape(-1), column.reshape(-1)


def rotate(x: Float[Array, "b n heads c"], angles: Float[Array, "n c//2"]) -> Float[Array, "b n heads c"]:
    """Turn each pair of neighbouring channels of each token by its angle, in float32."""
    cos, sin = jnp.cos(angles)[None, :, None], jnp.sin(angles)[None, :, None]
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    first, second = pairs[..., 0], pairs[..., 1]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
