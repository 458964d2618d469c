"""What both sides of MMDiT's golden test are made of: its sizes and its inputs."""

import dataclasses

import numpy as np
from golden.weights import array

TEXT, POOLED, TOKENS, CHANNELS = 24, 10, 5, 3
NOISE = np.array([3.0, 731.0], np.float32)
LARGEST, SIDE = 12, 4  # rows of the large grid of positions, in patches, and what they span


@dataclasses.dataclass(frozen=True)
class Setup:
    """A tiny net; the picture's size is height × width."""

    height: int
    width: int
    qk_norm: bool
    depth: int = 3
    heads: int = 2
    head: int = 8


SETUPS = {"medium": Setup(8, 12, qk_norm=False), "normed": Setup(8, 8, qk_norm=True, depth=2)}


def text() -> np.ndarray:
    """Make f32[2 TOKENS TEXT]."""
    return array("text", (2, TOKENS, TEXT), 1.0)


def pooled() -> np.ndarray:
    """Make f32[2 POOLED]."""
    return array("pooled", (2, POOLED), 1.0)


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make f32[shape] for an entry of the state_dict."""
    if len(shape) == 1:
        return (1.0 if "norm_" in name and name.endswith("weight") else 0.0) + array(name, shape, 0.1)
    return array(name, shape)
