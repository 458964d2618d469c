"""Pictures larger than a net's, seen through overlapping windows whose estimates are blended (arXiv:2302.08113)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.diffusion.guidance import Guidance, Guided, Unguided
from jaxgen.errors import UserError, check_field
from jaxgen.typing import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Windowed:
    """Estimate x0 in windows of the net's own size, and return their weighted mean at each pixel.

    The weights fall to about 0 at a window's sides, as a raised cosine, and add up to 1 at each pixel. Noise, solver
    and measurements are of the whole picture. Exact where each pixel is estimated from itself alone, and close where
    what it is estimated from lies well within a window; of what is larger than a window the net knows nothing. A
    picture of the net's own size is one window, and nothing is changed.
    """

    height: int
    """Of a window, in pixels."""
    width: int
    overlap: float = 0.5
    """Least share of a window that also lies in the next."""
    inner: Guidance = Unguided()
    """The guidance whose estimates are blended."""
    rows: int = 16
    """Most windows that are estimated at once: they bound the memory, also of a derivative."""

    def __post_init__(self) -> None:
        check_field(self, "height", self.height >= 1, "at least 1")
        check_field(self, "width", self.width >= 1, "at least 1")
        check_field(self, "overlap", 0 <= self.overlap < 1, "from 0 on, and below 1")
        check_field(self, "rows", self.rows >= 1, "at least 1")

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        self.inner.check(conditional=conditional, droppable=droppable, guide=guide)

    def evaluations(self, sigma: float) -> int:
        """Return how often the net is evaluated for each window."""
        return self.inner.evaluations(sigma)

    def count(self, height: int, width: int) -> tuple[int, int]:
        """Return how many windows lie below each other, and how many side by side.

        Raises UserError for a picture that is smaller than a window.
        """
        return len(self._starts(height, self.height)), len(self._starts(width, self.width))

    def memory(self, x: Float[Array, "b h w c"]) -> Tree:
        """Return the inner guidance's memory of each window, [b n ...]."""
        n = math.prod(self.count(*x.shape[1:3]))
        windows = jnp.zeros((len(x) * n, self.height, self.width, x.shape[3]), x.dtype)
        return jax.tree.map(lambda a: a.reshape(len(x), n, *a.shape[1:]), self.inner.memory(windows))

    def step(
        self, net: Guided, x: Float[Array, "b h w c"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b h w c"], Tree]:
        b, (down, across) = len(x), self.count(*x.shape[1:3])
        n = down * across
        together = max(1, min(self.rows // b, n))
        calls = -(-n // together)

        def in_calls(a: Array) -> Array:
            """Deal windows [b n ...] out over calls, [calls, b·together, ...]; the last call has the last one again."""
            filled = jnp.concatenate([a, jnp.repeat(a[:, -1:], calls * together - n, axis=1)], axis=1)
            dealt = jnp.moveaxis(filled.reshape(b, calls, together, *a.shape[2:]), 1, 0)
            return dealt.reshape(calls, b * together, *a.shape[2:])

        def gathered(a: Array) -> Array:
            dealt = jnp.moveaxis(a.reshape(calls, b, together, *a.shape[2:]), 0, 1)
            return dealt.reshape(b, calls * together, *a.shape[2:])[:, :n]

        # Windows of a picture lie next to each other: a batch that is spread over devices stays where it is.
        repeated = lambda tree: jax.tree.map(lambda a: jnp.repeat(a, together, axis=0), tree)  # noqa: E731
        many = dataclasses.replace(
            net, condition=repeated(net.condition), null=repeated(net.null), keys=repeated(net.keys)
        )

        @jax.checkpoint  # a derivative computes each call anew rather than keep what is inside all of them
        def estimate(x: Array, memory: Tree) -> tuple[Array, Tree]:
            x0, new = self.inner.step(many, x, sigma, memory)
            return x0.astype(x.dtype), new

        windows = self._cut(x).reshape(b, n, self.height, self.width, x.shape[3])
        each, new = jax.lax.map(lambda call: estimate(*call), (in_calls(windows), jax.tree.map(in_calls, memory)))
        blended = self._blended(gathered(each).reshape(b, down, across, *each.shape[2:]), (x.shape[1], x.shape[2]))
        return blended, jax.tree.map(gathered, new)

    def _cut(self, x: Float[Array, "b h w c"]) -> Float[Array, "b down across i j c"]:
        """Return the windows of pictures, row by row."""
        rows, columns = self._pixels(x.shape[1:3])
        return jnp.moveaxis(x[:, rows][:, :, :, columns], 3, 2)

    def _blended(self, windows: Float[Array, "b down across i j c"], size: tuple[int, int]) -> Float[Array, "b h w c"]:
        """Return pictures of the weighted windows; of windows as `_cut` returns them, it is the inverse."""
        (rows, columns), (height, width) = self._pixels(size), size
        down, across = (
            jnp.asarray(_weights(at, side), windows.dtype) for at, side in zip((rows, columns), size, strict=True)
        )
        weighted = windows * down[None, :, None, :, None, None] * across[None, None, :, None, :, None]
        b, _, _, i, _, c = windows.shape
        strips = jnp.zeros((b, len(rows), i, width, c), windows.dtype)
        strips = strips.at[:, :, :, columns].add(jnp.moveaxis(weighted, 2, 3))
        return jnp.zeros((b, height, width, c), windows.dtype).at[:, rows].add(strips)

    def _pixels(self, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Return which rows the windows below each other have, i[n height], and which columns those side by side."""
        sides = zip(size, (self.height, self.width), strict=True)
        rows, columns = (self._starts(side, window)[:, None] + np.arange(window) for side, window in sides)
        return rows, columns

    def _starts(self, side: int, window: int) -> np.ndarray:
        """Return where windows begin: evenly apart, as few as overlap enough, the last one ending at the border."""
        if side < window:
            raise UserError(
                f"a picture of {side} pixels along a side is smaller than the {window} of a window; enlarge it first"
            )
        stride = max(1, math.floor(window * (1 - self.overlap)))
        return np.round(np.linspace(0, side - window, 1 + -(-(side - window) // stride))).astype(int)


def _weights(at: np.ndarray, side: int) -> Any:
    """Return the weight of each window's pixels, f[n window], given where they lie on a side."""
    window = at.shape[1]
    hill = np.sin(np.pi * (np.arange(window) + 0.5) / window) ** 2
    total = np.zeros(side)
    np.add.at(total, at, hill[None])
    return hill / total[at]
