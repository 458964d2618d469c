"""Squares of pixels as channels, and back: pixel shuffle and unshuffle."""

from jaxtyping import Array, Float


def to_space(x: Float[Array, "b h w k"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """Make channels squares of factor × factor pixels (arXiv:1609.05158): of each channel of the output, row by row."""
    b, h, w, k = x.shape
    cells = x.reshape(b, h, w, k // factor**2, factor, factor)
    return cells.transpose(0, 1, 4, 2, 5, 3).reshape(b, h * factor, w * factor, -1)


def to_depth(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b i j k"]:
    """Make squares of factor × factor pixels channels: what `to_space` undoes."""
    b, h, w, c = x.shape
    cells = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return cells.transpose(0, 1, 3, 5, 2, 4).reshape(b, h // factor, w // factor, -1)
