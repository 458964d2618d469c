"""Make resnet_generator.npz: CycleGAN's and CUT's ResNet generators, written out, on weights that the tests make anew.

PYTHONPATH=tests python tests/golden/make_resnet_generator.py     (with torch)
"""

import pathlib

import numpy as np
import torch
from golden.autoencoder_state import value
from golden.weights import image
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).parent
WIDTH, BLOCKS, HALVINGS = 4, 2, 2
SIDES = (16, 24)


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)


class Reference(nn.Module):
    """Every convolution has a bias, also before a norm, as in the authors' nets."""

    def __init__(self, antialiased: bool):
        super().__init__()
        self.antialiased = antialiased
        self.layers = nn.ModuleDict({"in": nn.Conv2d(3, WIDTH, 7)})
        for i in range(HALVINGS):
            width = WIDTH * 2**i
            self.layers[f"down{i}"] = conv3(width, 2 * width, 1 if antialiased else 2)
        widest = WIDTH * 2**HALVINGS
        for i in range(BLOCKS):
            for j in range(2):
                self.layers[f"block{i}_{j}"] = nn.Conv2d(widest, widest, 3)
        for i in range(HALVINGS):
            width = widest // 2**i
            transposed = nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
            self.layers[f"up{i}"] = conv3(width, width // 2) if antialiased else transposed
        self.layers["out"] = nn.Conv2d(WIDTH, 3, 7)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        norm, reflected = functional.instance_norm, lambda x, n: functional.pad(x, (n,) * 4, mode="reflect")
        maps = {}
        x = functional.relu(norm(self.layers["in"](reflected(x, 3))))
        for i in range(HALVINGS):
            x = maps[f"halving{i}"] = self.layers[f"down{i}"](x)
            x = functional.relu(norm(x))
            if self.antialiased:
                x = self.filtered_down(x)
        for i in range(BLOCKS):
            y = functional.relu(norm(self.layers[f"block{i}_0"](reflected(x, 1))))
            x = maps[f"block{i}"] = x + norm(self.layers[f"block{i}_1"](reflected(y, 1)))
        for i in range(HALVINGS):
            if self.antialiased:
                x = self.filtered_up(x)
            x = functional.relu(norm(self.layers[f"up{i}"](x)))
        return torch.tanh(self.layers["out"](reflected(x, 3))), maps

    def filtered_down(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        line = torch.tensor([1.0, 2.0, 1.0]).to(x)
        kernel = (line[:, None] * line[None]) / 16
        padded = functional.pad(x, (1, 1, 1, 1), mode="reflect")
        return functional.conv2d(padded, kernel.expand(channels, 1, 3, 3), stride=2, groups=channels)

    def filtered_up(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        line = torch.tensor([1.0, 3.0, 3.0, 1.0]).to(x)
        kernel = (line[:, None] * line[None]) / 16
        padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
        wide = functional.conv_transpose2d(
            padded, kernel.expand(channels, 1, 4, 4), stride=2, padding=1, groups=channels
        )
        return wide[:, :, 2:-2, 2:-2]


def main() -> None:
    arrays = {}
    for name in ("strided", "antialiased"):
        net = Reference(name == "antialiased")
        for entry, tensor in net.layers.named_parameters():
            tensor.copy_(torch.from_numpy(value(entry, tuple(tensor.shape))))
        net = net.double()  # so that one side only rounds
        made, maps = net(torch.from_numpy(image(*SIDES)).double().permute(0, 3, 1, 2).contiguous())
        arrays[name] = made.permute(0, 2, 3, 1).numpy()
        # One image's, and without the biases that norms take off.
        for key, found in maps.items():
            arrays[f"{name} {key}"] = found[:1].permute(0, 2, 3, 1).numpy()
            if key.startswith("halving"):
                arrays[f"{name} {key}"] -= net.layers[f"down{key[-1]}"].bias.numpy()
    arrays = {name: made.astype(np.float32) for name, made in arrays.items()}
    np.savez_compressed(HERE / "resnet_generator.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})


with torch.no_grad():
    main()
