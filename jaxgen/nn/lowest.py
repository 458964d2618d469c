"""The smallest map of a GAN's nets, which images grow from by doubling: 4×4 for a square of 4·2^n pixels."""

import math

from jaxgen.errors import UserError


def lowest_map(height: int, width: int, net: str) -> tuple[int, tuple[int, int]]:
    """Return how often an image of this size is halved until its shorter side is 4..7, and the size it then has.

    `net` begins the error's line. Raises UserError where the sides cannot be halved so often.
    """
    halvings = halvings_of(height, width)
    multiple = 2**halvings
    if min(height, width) < 4 or height % multiple or width % multiple:
        raise UserError(
            f"{net}: images of {height}×{width} cannot be halved until their shorter side is 4 to 7 pixels; resize "
            f"them, to {nearest(height, width)} for example"
        )
    return halvings, (height // multiple, width // multiple)


def halvings_of(height: int, width: int) -> int:
    """Return how often the shorter side can be halved before it is less than 4 pixels."""
    return max(0, math.floor(math.log2(max(min(height, width), 1) / 4)))


def nearest(height: int, width: int) -> str:
    """Name the nearest size that `lowest_map` takes."""
    multiple = 2 ** halvings_of(height, width)
    least = 4 * multiple
    return "×".join(str(max(least, round(side / multiple) * multiple)) for side in (height, width))
