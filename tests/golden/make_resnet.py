"""Make resnet_*.npz: outputs of the torch references on weights and images that the tests make anew.

Run it where torch, torchvision and segmentation_models_pytorch are: PYTHONPATH=tests python tests/golden/make_resnet.py
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

# torchvision's compiled operators may be missing for this torch; none is used, but its import asks for their names.
if not hasattr(torch.ops.torchvision, "nms"):
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import segmentation_models_pytorch as smp
import torchvision
from golden.resnet_state import value
from golden.weights import image

HERE = pathlib.Path(__file__).parent
SIZES = ((64, 64), (37, 53))


def fill(model: nn.Module, last: str = "bn3") -> nn.Module:
    state = model.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape), last)))
    return model.eval()


def count(model: nn.Module) -> np.ndarray:
    return np.array(sum(p.numel() for p in model.parameters()))


def nchw(height: int, width: int, batch: int) -> torch.Tensor:
    return torch.from_numpy(image(height, width, batch=batch)).permute(0, 3, 1, 2).contiguous()


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).contiguous().numpy()


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    path = HERE / f"resnet_{name}.npz"
    np.savez_compressed(path, **arrays)
    print(path.name, path.stat().st_size, {k: (v.shape, float(v.std())) for k, v in arrays.items()})


def resnet50() -> None:
    model = fill(torchvision.models.resnet50(weights=None))
    out = {f"logits_{h}x{w}": model(nchw(h, w, 2)).numpy() for h, w in SIZES}
    save("resnet50", {"parameters": count(model), **out})


def fcn() -> None:
    # Maps are stored on every second row and column: the files stay small.
    model = fill(
        torchvision.models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    )
    arrays = {"parameters": count(model)}
    for h, w in SIZES:
        out = model(nchw(h, w, 1))
        arrays[f"logits_{h}x{w}"] = nhwc(out["out"])[:, ::2, ::2]
        arrays[f"aux_{h}x{w}"] = nhwc(out["aux"])[:, ::2, ::2]
    save("fcn", arrays)


def deeplab() -> None:
    """The layers of segmentation_models_pytorch, run in the order of its forward, with two differences.

    Resizing is half-pixel bilinear, to the exact size, where smp stretches corners to corners (align_corners=True) by
    a whole factor; and the convolution of layer4 whose stride became a dilation keeps dilation 1, as in torchvision.
    """
    model = smp.DeepLabV3Plus(
        "resnet18",
        encoder_weights=None,
        encoder_output_stride=16,
        decoder_channels=32,
        decoder_atrous_rates=(1, 2, 3),
        classes=5,
    )
    model = fill(model, last="bn2")
    strided = model.encoder.layer4[0].conv1
    strided.dilation = strided.padding = (1, 1)

    arrays = {"parameters": count(model)}
    for h, w in SIZES:
        features = model.encoder(nchw(h, w, 1))
        low = model.decoder.block1(features[2])
        high = model.decoder.aspp(features[-1])
        high = F.interpolate(high, size=low.shape[-2:], mode="bilinear", align_corners=False)
        logits = model.segmentation_head[0](model.decoder.block2(torch.cat([high, low], dim=1)))
        arrays[f"logits_{h}x{w}"] = nhwc(F.interpolate(logits, size=(h, w), mode="bilinear", align_corners=False))
    save("deeplab", arrays)


class Layer(nn.Module):
    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, features, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.conv(x)))


class Double(nn.Module):
    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.conv1 = Layer(channels, features)
        self.conv2 = Layer(features, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x))


class Unet(nn.Module):
    def __init__(self, classes: int, widths: tuple[int, ...], *, transposed: bool) -> None:
        super().__init__()
        self.depth = len(widths) - 1
        channels = 3
        for i, features in enumerate(widths[:-1]):
            self.add_module(f"down{i}", Double(channels, features))
            channels = features
        self.bottom = Double(channels, widths[-1])
        for i, features in enumerate(widths[:-1]):
            below = widths[i + 1]
            grow = nn.ConvTranspose2d(below, features, 2, stride=2, bias=False)
            if not transposed:
                grow = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(below, features, 3, padding=1, bias=False))
            self.add_module(f"upsample{i}", grow)
            self.add_module(f"up{i}", Double(2 * features, features))
        self.logits = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, _, h, w = x.shape
        multiple = 2**self.depth
        x = F.pad(x, (0, -w % multiple, 0, -h % multiple), mode="replicate")
        skips = []
        for i in range(self.depth):
            skips.append(self.get_submodule(f"down{i}")(x))
            x = F.max_pool2d(skips[i], 2)
        x = self.bottom(x)
        for i in reversed(range(self.depth)):
            x = torch.cat([skips[i], self.get_submodule(f"upsample{i}")(x)], dim=1)
            x = self.get_submodule(f"up{i}")(x)
        return self.logits(x)[:, :, :h, :w]


def unet() -> None:
    model = fill(Unet(5, (8, 16, 32), transposed=True))
    out = {f"logits_{h}x{w}": nhwc(model(nchw(h, w, 1))) for h, w in SIZES}
    save("unet", {"parameters": count(model), **out})


def training() -> None:
    """A forward pass in training mode: normalised by the batch, and the running statistics after it."""
    model = fill(Unet(3, (4, 8), transposed=False)).train()
    logits = nhwc(model(nchw(32, 48, 2)))
    stats = {name: buffer.numpy() for name, buffer in model.named_buffers() if "running" in name}
    save("training", {"logits": logits, **stats})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        for make in (resnet50, fcn, deeplab, unet, training):
            make()
