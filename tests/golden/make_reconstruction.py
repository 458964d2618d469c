"""Make reconstruction.npz: scikit-image's PSNR and SSIM of pairs of images that the tests make anew.

PYTHONPATH=tests python tests/golden/make_reconstruction.py     (with scikit-image)
"""

import pathlib

import numpy as np
from golden.weights import image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

HERE = pathlib.Path(__file__).parent


def levels(x: np.ndarray) -> np.ndarray:
    return np.clip(np.floor(x * np.float32(127.5) + np.float32(128)), 0, 255).astype(np.uint8)


def main() -> None:
    arrays = {}
    for channels in (1, 3):
        x, noise = image(19, 24, channels, 4), image(20, 24, channels, 4)[:, :19]
        for i, (a, b) in enumerate(zip(levels(x), levels(0.8 * x + 0.3 * noise), strict=True)):
            similar = structural_similarity(
                a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
            )
            arrays[f"{channels}_{i}"] = np.array([peak_signal_noise_ratio(a, b, data_range=255), similar])
    np.savez_compressed(HERE / "reconstruction.npz", **arrays)
    print(arrays)


main()
