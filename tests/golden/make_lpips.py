"""Make lpips.npz: LPIPS by VGG-16, version 0.1, written out in torch from its paper.

PYTHONPATH=tests python tests/golden/make_lpips.py     (with torch)
"""

import pathlib

import numpy as np
import torch
from golden.lpips_state import DEPTHS, SIDES, WIDTHS, value
from golden.weights import image
from torch.nn import functional

HERE = pathlib.Path(__file__).parent


def stages(x: torch.Tensor) -> list[torch.Tensor]:
    """Return the last rectified map of each stage of torchvision's layers, numbered as there."""
    x = (x - torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).view(
        1, 3, 1, 1
    )
    layer, maps = 0, []
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
        for _ in range(depth):
            name = f"net.slice{stage}.{layer}"
            kernel = torch.tensor(value(f"{name}.weight", (width, x.shape[1], 3, 3)))
            x = functional.relu(functional.conv2d(x, kernel, torch.tensor(value(f"{name}.bias", (width,))), padding=1))
            layer += 2
        maps.append(x)
        x = functional.max_pool2d(x, 2)
        layer += 1
    return maps


def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    total = torch.zeros(len(a))
    for k, (x, y) in enumerate(zip(stages(a), stages(b), strict=True)):
        x, y = (m / (m.square().sum(1, keepdim=True).sqrt() + 1e-10) for m in (x, y))
        weight = torch.tensor(value(f"lin{k}.model.1.weight", (1, x.shape[1], 1, 1)))
        total += functional.conv2d((x - y).square(), weight).mean((1, 2, 3))
    return total


def main() -> None:
    pixels = torch.tensor(np.asarray(image(*SIDES))).permute(0, 3, 1, 2)
    np.savez_compressed(HERE / "lpips.npz", distance=distance(pixels, pixels.flip(3)).numpy())


if __name__ == "__main__":
    main()
