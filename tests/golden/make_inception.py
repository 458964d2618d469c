"""Make inception.npz: features and logits of torch-fidelity's InceptionV3 on weights that the tests make anew.

PYTHONPATH=tests python tests/golden/make_inception.py     (with torch, torchvision and torch-fidelity)
"""

import pathlib
from unittest import mock

import numpy as np
import torch

# torchvision's compiled operators may be missing for this torch; none is used, but its import asks for their names.
if not hasattr(torch.ops.torchvision, "nms"):
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from golden.resnet_state import value
from golden.weights import image
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

HERE = pathlib.Path(__file__).parent


def pixels(height: int, width: int) -> torch.Tensor:
    """Make u8[2 3 height width]."""
    levels = np.round((image(height, width) + 1.0) * 127.5).astype(np.uint8)
    return torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous()


# Its constructor wants a file of weights: this one gets none, and its values below.
with mock.patch("torch.load"), mock.patch.object(FeatureExtractorInceptionV3, "load_state_dict"):
    net = FeatureExtractorInceptionV3("golden", ["2048", "logits"], feature_extractor_weights_path="none")

arrays = {"parameters": np.array(sum(p.numel() for p in net.parameters()))}
with torch.no_grad():
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))
    for height, width in ((64, 64), (299, 299)):
        features, logits = net(pixels(height, width))
        arrays[f"features_{height}x{width}"] = features.numpy()
        arrays[f"logits_{height}x{width}"] = logits[:, ::4].numpy()
    for height, width in ((37, 53), (400, 310)):
        x = pixels(height, width).float()
        resized = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
        arrays[f"resized_{height}x{width}"] = resized.permute(0, 2, 3, 1)[:1, ::13, ::13].contiguous().numpy()
np.savez_compressed(HERE / "inception.npz", **arrays)
print((HERE / "inception.npz").stat().st_size, {k: (v.shape, float(v.std())) for k, v in arrays.items()})
