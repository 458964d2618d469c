"""What both sides of StyleGAN2's golden test are made of: sizes, inputs, and values for the reference's state_dict."""

import numpy as np
from golden.weights import array

SIDE, LATENT, STYLE, CLASSES, LAYERS = 16, 7, 10, 3, 2
BASE, WIDEST = 80, 12  # 12, 10 and 5 channels at 4×4, 8×8 and 16×16
TRUNCATION = 0.7
LABEL = np.array([2, 0, 1, 0, 2, 1, 1, 0])  # the generator makes the first two
Z = array("z", (2, LATENT), 1.0)


def value(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Make an entry of the state_dict, of the size that it has at its start, but biases and strengths are not 0."""
    kind = name.rpartition(".")[2]
    if kind in ("weight", "bias"):
        rate = 0.01 if "mapping.fc" in name else 1.0
        return array(name, shape, (1.0 if kind == "weight" else 0.2) / rate) + np.float32(name.endswith("affine.bias"))
    return array(name, shape, 0.3 if kind in ("noise_strength", "w_avg") else 1.0)
