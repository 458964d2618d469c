"""Make drunet.npz: DPIR's UNetRes, written out in torch from its paper.

PYTHONPATH=tests python tests/golden/make_drunet.py     (with torch)
"""

import pathlib

import numpy as np
import torch
from golden.drunet_state import BLOCKS, SIDES, WIDTHS
from golden.weights import array, image
from torch.nn import functional

HERE = pathlib.Path(__file__).parent


def kernel(name: str, inputs: int, outputs: int, side: int, *, transposed: bool = False) -> torch.Tensor:
    """Return a kernel [out in h w], or [in out h w] of a transposed convolution, of the arrays of our layout.

    Ours at stride 2 are products: channels in the order of torch's pixel (un)shuffle.
    """
    if side == 3:
        return torch.tensor(array(f"{name}/kernel", (3, 3, inputs, outputs))).permute(3, 2, 0, 1)
    if transposed:
        return torch.tensor(array(f"{name}/kernel", (inputs, outputs * 4))).reshape(inputs, outputs, 2, 2)
    return torch.tensor(array(f"{name}/kernel", (inputs * 4, outputs))).T.reshape(outputs, inputs, 2, 2)


def conv(x: torch.Tensor, name: str, outputs: int) -> torch.Tensor:
    return functional.conv2d(x, kernel(name, x.shape[1], outputs, 3), padding=1)


def blocks(x: torch.Tensor, name: str) -> torch.Tensor:
    for i in range(BLOCKS):
        y = functional.relu(conv(x, f"{name}_{i}_conv0", x.shape[1]))
        x = x + conv(y, f"{name}_{i}_conv1", x.shape[1])
    return x


def unet_res(x: torch.Tensor) -> torch.Tensor:
    x = conv(x, "head", WIDTHS[0])
    seen = [x]
    for i, width in enumerate(WIDTHS[1:]):
        x = functional.conv2d(blocks(x, f"down{i}"), kernel(f"halve{i}", x.shape[1], width, 2), stride=2)
        seen.append(x)
    x = blocks(x, "body")
    for i in reversed(range(len(WIDTHS) - 1)):
        up = kernel(f"double{i}", x.shape[1], WIDTHS[i], 2, transposed=True)
        x = blocks(functional.conv_transpose2d(x + seen.pop(), up, stride=2), f"up{i}")
    return conv(x + seen.pop(), "tail", 3)


def main() -> None:
    pixels = torch.tensor(np.asarray(image(*SIDES)))[:1].permute(0, 3, 1, 2) / 2 + 0.5
    made = 2 * unet_res(pixels) - 1
    np.savez_compressed(HERE / "drunet.npz", plain=made.permute(0, 2, 3, 1).numpy())


if __name__ == "__main__":
    main()
