"""What both sides of the autoencoder's golden test are made of: its sizes, and values for the state_dict."""

import numpy as np
from golden.weights import array

WIDTHS, GROUPS = (8, 8, 16), 4
SETUPS = {"sd1": {"channels": 2, "mixed": True}, "sd3": {"channels": 4, "mixed": False}}
SIDES = (16, 24)


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make f32[shape] for the entry `name` of a net with norms and biases."""
    if len(shape) == 1:
        return (1.0 if "norm" in name and name.endswith("weight") else 0.0) + array(name, shape, 0.1)
    return array(name, shape)
