"""How noisy a picture is, told from the picture alone."""

import numpy as np
from jaxtyping import Float


def noise_level(image: Float[np.ndarray, "h w c"]) -> float:
    """Return the standard deviation of white Gaussian noise in a picture, in the picture's units.

    It is the median size of the finest diagonal Haar wavelets, over that of a normal variable of deviation 1 (Donoho
    and Johnstone, Biometrika 81, 1994, section 4.2): edges are few among them. Texture counts as noise, and noise that
    was clipped, in black and white places, does not.
    """
    rows, columns = (side // 2 * 2 for side in image.shape[:2])
    even = image[:rows, :columns].astype(np.float64)
    diagonal = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    return float(np.median(np.abs(diagonal)) / 0.6745) if diagonal.size else 0.0
