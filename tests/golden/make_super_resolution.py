"""Make super_resolution.npz: BasicSR's nets and Real-ESRGAN's discriminator, written out in torch from their papers.

PYTHONPATH=tests python tests/golden/make_super_resolution.py     (with torch)
"""

import pathlib

import numpy as np
import torch
from golden.super_resolution_state import BLOCKS, FEATURES, GROWTH, NETS, SIDES, WIDTH, value
from golden.weights import image
from torch import nn
from torch.nn import functional

HERE = pathlib.Path(__file__).parent


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def leaky(x: torch.Tensor, slope: float = 0.2) -> torch.Tensor:
    return functional.leaky_relu(x, slope)


class DenseBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for k in range(5):
            setattr(self, f"conv{k + 1}", conv(FEATURES + k * GROWTH, FEATURES if k == 4 else GROWTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = [x]
        for k in range(4):
            maps.append(leaky(getattr(self, f"conv{k + 1}")(torch.cat(maps, 1))))
        return x + 0.2 * self.conv5(torch.cat(maps, 1))


class Rrdb(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(), DenseBlock(), DenseBlock()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 0.2 * self.rdb3(self.rdb2(self.rdb1(x)))


class RrdbNet(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.fold = 4 // scale
        self.conv_first = conv(3 * self.fold**2, FEATURES)
        self.body = nn.Sequential(*(Rrdb() for _ in range(BLOCKS)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (conv(FEATURES, FEATURES) for _ in range(4))
        self.conv_last = conv(FEATURES, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv_first(functional.pixel_unshuffle(x, self.fold) if self.fold > 1 else x)
        x = first + self.conv_body(self.body(first))
        for up in (self.conv_up1, self.conv_up2):
            x = leaky(up(functional.interpolate(x, scale_factor=2, mode="nearest")))
        return self.conv_last(leaky(self.conv_hr(x)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(FEATURES, FEATURES), conv(FEATURES, FEATURES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(functional.relu(self.conv1(x)))


class SrResNet(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.steps = {1: (), 2: (2,), 3: (3,), 4: (2, 2)}[scale]
        self.conv_first = conv(3, FEATURES)
        self.body = nn.Sequential(*(Residual() for _ in range(BLOCKS)))
        for i, step in enumerate(self.steps):
            setattr(self, f"upconv{i + 1}", conv(FEATURES, FEATURES * step**2))
        self.conv_hr, self.conv_last = conv(FEATURES, FEATURES), conv(FEATURES, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.body(leaky(self.conv_first(image), 0.1))
        for i, step in enumerate(self.steps):
            x = leaky(functional.pixel_shuffle(getattr(self, f"upconv{i + 1}")(x), step), 0.1)
        x = self.conv_last(leaky(self.conv_hr(x), 0.1))
        if self.scale == 1:
            return x + image
        return x + functional.interpolate(image, scale_factor=self.scale, mode="bilinear", align_corners=False)


class Compact(nn.Module):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = []
        for k in range(BLOCKS + 1):
            layers += [conv(FEATURES if k else 3, FEATURES), nn.PReLU(FEATURES)]
        self.body = nn.Sequential(*layers, conv(FEATURES, 3 * scale**2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        larger = functional.interpolate(image, scale_factor=self.scale, mode="nearest")
        return functional.pixel_shuffle(self.body(image), self.scale) + larger


class Judge(nn.Module):
    """The U-Net discriminator, its kernels divided by their largest singular value."""

    def __init__(self) -> None:
        super().__init__()
        w = WIDTH
        self.first, self.last = conv(3, w), conv(w, 1)
        sizes = {
            "down0": (w, 2 * w, 4),
            "down1": (2 * w, 4 * w, 4),
            "down2": (4 * w, 8 * w, 4),
            "up2": (8 * w, 4 * w, 3),
        }
        sizes |= {"up1": (4 * w, 2 * w, 3), "up0": (2 * w, w, 3), "high0": (w, w, 3), "high1": (w, w, 3)}
        self.inner = nn.ModuleDict(
            {
                name: nn.Conv2d(a, b, k, stride=k - 2 if k == 4 else 1, padding=1, bias=False)
                for name, (a, b, k) in sizes.items()
            }
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = leaky(self.first(x))
        kept = []
        for i in range(3):
            kept.append(x)
            x = leaky(self.inner[f"down{i}"](x))
        for i in reversed(range(3)):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = leaky(self.inner[f"up{i}"](x)) + kept[i]
        x = leaky(self.inner["high1"](leaky(self.inner["high0"](x))))
        return self.last(x)[:, 0]


def fill(net: nn.Module) -> nn.Module:
    for name, tensor in net.named_parameters():
        tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))
    return net.double()  # so that one side only rounds


def main() -> None:
    kinds = {"rrdb": RrdbNet, "srresnet": SrResNet, "compact": Compact}
    x = torch.from_numpy(image(*SIDES)).double().permute(0, 3, 1, 2).contiguous()
    arrays = {}
    for name in NETS:
        net = fill(kinds[name[:-1]](int(name[-1])))
        arrays[name] = 2 * net(x / 2 + 0.5).permute(0, 2, 3, 1)[:1].numpy() - 1
    judge = fill(Judge())
    for layer in judge.inner.values():
        layer.weight /= torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    wide = torch.from_numpy(image(16, 24)).double().permute(0, 3, 1, 2).contiguous()
    arrays["judge"] = judge(wide).numpy()
    arrays = {name: made.astype(np.float32) for name, made in arrays.items()}
    np.savez_compressed(HERE / "super_resolution.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})


with torch.no_grad():
    main()
