"""Make patchgan.npz: logits of CycleGAN's NLayerDiscriminator, written out, on weights that the tests make anew.

PYTHONPATH=tests python tests/golden/make_patchgan.py     (with torch)
"""

import pathlib

import numpy as np
import torch
from golden.autoencoder_state import value
from golden.weights import image
from torch import nn

HERE = pathlib.Path(__file__).parent
WIDTH = 4


def net(halvings: int, norm: str) -> nn.Sequential:
    layers, inputs = [], 3
    for i in range(halvings + 1):
        width = WIDTH * min(2**i, 8)
        plain = i == 0 or norm == "instance"
        layers.append(nn.Conv2d(inputs, width, 4, stride=1 if i == halvings else 2, padding=1, bias=plain))
        if i:
            layers.append(nn.InstanceNorm2d(width) if norm == "instance" else nn.BatchNorm2d(width))
        layers.append(nn.LeakyReLU(0.2))
        inputs = width
    return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4, padding=1))


def main() -> None:
    arrays = {}
    for norm in ("batch", "instance"):
        model = net(3, norm).train()
        count = {nn.Conv2d: 0, nn.BatchNorm2d: 1}
        for module in model:
            kind = type(module)
            if kind in count:
                name = f"conv{count[kind]}" if kind is nn.Conv2d else f"norm{count[kind]}"
                count[kind] += 1
                for entry, tensor in module.named_parameters():
                    tensor.copy_(torch.from_numpy(value(f"{name}.{entry}", tuple(tensor.shape))))
        x = torch.from_numpy(image(40, 32)).permute(0, 3, 1, 2).contiguous()
        arrays[norm] = model(x)[:, 0].numpy()
    np.savez_compressed(HERE / "patchgan.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})


with torch.no_grad():
    main()
