"""Make fcn_*.npz and vgg.npz: logits of torch nets on weights and pictures that the tests make anew.

    PYTHONPATH=tests python tests/golden/make_fcn.py     (with torch and torchvision)

The FCN follows the nets of Shelhamer et al. layer by layer, with their numbers for padding and cropping written out.
"""

import itertools
import pathlib

import numpy as np
import torch
from torch import nn

# torchvision's compiled operators may be missing for this torch; none is used, but its import asks for their names.
if not hasattr(torch.ops.torchvision, "nms"):
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from golden.weights import he, image
from torchvision.models.vgg import VGG, cfgs, make_layers

HERE = pathlib.Path(__file__).parent
SIZES = ((64, 64), (37, 53))
WIDTHS, DEPTHS, HIDDEN, CLASSES = (4, 8, 16, 24, 24), (2, 2, 3, 3, 3), 32, 3


class Fcn(nn.Module):
    """FCN-32s, 16s or 8s; the skips are scaled as in the paper's training at once."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        inputs = 3
        for i, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True), start=1):
            for j in range(1, depth + 1):
                self.add_module(f"conv{i}_{j}", nn.Conv2d(inputs, width, 3, padding=100 if i == j == 1 else 1))
                inputs = width
        self.fc6 = nn.Conv2d(inputs, HIDDEN, 7)
        self.fc7 = nn.Conv2d(HIDDEN, HIDDEN, 1)
        self.score_fr = nn.Conv2d(HIDDEN, CLASSES, 1)
        if stride <= 16:
            self.score_pool4 = nn.Conv2d(WIDTHS[3], CLASSES, 1)
            self.upscore2 = nn.ConvTranspose2d(CLASSES, CLASSES, 4, 2, bias=False)
        if stride == 8:
            self.score_pool3 = nn.Conv2d(WIDTHS[2], CLASSES, 1)
            self.upscore_pool4 = nn.ConvTranspose2d(CLASSES, CLASSES, 4, 2, bias=False)
        self.upscore = nn.ConvTranspose2d(CLASSES, CLASSES, 2 * stride, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        pools = {}
        for i, depth in enumerate(DEPTHS, start=1):
            for j in range(1, depth + 1):
                x = torch.relu(getattr(self, f"conv{i}_{j}")(x))
            pools[i] = x = nn.functional.max_pool2d(x, 2, 2, ceil_mode=True)
        x = self.score_fr(torch.relu(self.fc7(torch.relu(self.fc6(x)))))
        if self.stride <= 16:
            x = self.upscore2(x)
            x = x + cut(self.score_pool4(0.01 * pools[4]), 5, *x.shape[2:])
        if self.stride == 8:
            x = self.upscore_pool4(x)
            x = x + cut(self.score_pool3(0.0001 * pools[3]), 9, *x.shape[2:])
        return cut(self.upscore(x), {32: 19, 16: 27, 8: 31}[self.stride], height, width)


def cut(x: torch.Tensor, offset: int, height: int, width: int) -> torch.Tensor:
    part = x[:, :, offset : offset + height, offset : offset + width]
    assert part.shape[2:] == (height, width)
    return part


def fill(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            # The skips' kernels make up for their scale, so that all three maps matter in the sum.
            boost = {"score_pool4.weight": 100.0, "score_pool3.weight": 10000.0}.get(name, 1.0)
            tensor.copy_(torch.from_numpy(boost * he(name, tuple(tensor.shape))))
    return model.eval()


def nchw(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(image(height, width)).permute(0, 3, 1, 2).contiguous()


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    path = HERE / f"{name}.npz"
    np.savez_compressed(path, **arrays)
    print(path.name, path.stat().st_size, {k: (v.shape, float(v.std())) for k, v in arrays.items()})


def fcn(stride: int) -> None:
    model = fill(Fcn(stride))
    out = {f"{h}x{w}": model(nchw(h, w)).permute(0, 2, 3, 1).contiguous().numpy() for h, w in SIZES}
    save(f"fcn_{stride}s", out)


def vgg() -> None:
    """torchvision's VGG-16, narrow, with a head for the 2 × 2 and the 1 × 1 cells that pictures this small leave."""
    scale = dict(zip((64, 128, 256, 512, 512), WIDTHS, strict=True))
    layers = [v if v == "M" else scale[v] for v in cfgs["D"]]
    arrays = {}
    for h, w in SIZES:
        model = VGG(make_layers(layers), init_weights=False)
        model.avgpool = nn.Identity()
        cells = (h // 32) * (w // 32)
        sizes = (cells * WIDTHS[-1], HIDDEN, HIDDEN, CLASSES)
        for i, (m, n) in enumerate(itertools.pairwise(sizes)):
            model.classifier[3 * i] = nn.Linear(m, n)
        arrays[f"{h}x{w}"] = fill(model)(nchw(h, w)).numpy()
    save("vgg", arrays)


with torch.no_grad():
    for stride in (32, 16, 8):
        fcn(stride)
    vgg()
