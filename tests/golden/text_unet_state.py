"""What both sides of the text U-Net's golden test are made of: its sizes and its inputs."""

import dataclasses

import numpy as np
from golden.weights import array

TEXT, TOKENS, CHANNELS = 24, 5, 3
NOISE = np.array([3.0, 731.0], np.float32)
MASK = np.array([[True, True, True, False, False], [True] * TOKENS])


@dataclasses.dataclass(frozen=True)
class Setup:
    """A tiny net; the picture's size is height × width."""

    height: int
    width: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    depth: int = 1
    linear: bool = False
    """Whether the reference's projections are linear, as Stable Diffusion 2's, rather than 1×1 convolutions."""
    masked: bool = False
    model_channels: int = 16
    heads: int = 4
    groups: int = 8


SETUPS = {
    "sd1": Setup(8, 12, multipliers=(1, 2, 2), blocks=2, attention=(0, 1)),
    "linear": Setup(8, 8, multipliers=(1, 2), blocks=1, attention=(1,), depth=2, linear=True, masked=True),
}


def text() -> np.ndarray:
    """Make f32[2 TOKENS TEXT]."""
    return array("text", (2, TOKENS, TEXT), 1.0)
