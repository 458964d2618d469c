"""Make dit.npz: outputs of facebookresearch/DiT and hustvl/LightningDiT on weights that the tests make anew.

    PYTHONPATH=tests python tests/golden/make_dit.py DIT LIGHTNING     (with torch, timm and einops)

DIT and LIGHTNING are checkouts of the two: of the first `models.py` is read, of the second `models/lightningdit.py` and
what it imports.
"""

import os
import pathlib
import sys

import numpy as np

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # LightningDiT compiles its layers; here they run once
import torch

# torchvision's compiled operators may be missing for this torch; none is used, but its import asks for their names.
if not hasattr(torch.ops.torchvision, "nms"):
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from golden.resnet_state import value
from golden.weights import image

HERE = pathlib.Path(__file__).parent
CLASSES = 5
SMALL = {"hidden_size": 32, "depth": 2, "num_heads": 2, "num_classes": CLASSES, "learn_sigma": False}
NOISE, LABELS = (3.0, 731.5), (2, CLASSES)  # the second label is the null class


def load(folder: str, module: str) -> object:
    """Import from a checkout; both of them call it `models`, one a file and the other a folder."""
    for name in [name for name in sys.modules if name.split(".")[0] == "models"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    try:
        return __import__(module, fromlist=["models"])
    finally:
        sys.path.remove(folder)


def output(net: torch.nn.Module, side: int, channels: int) -> np.ndarray:
    """Fill the net with weights by name, and return f32[2 side side channels] of its output."""
    for name, tensor in net.named_parameters():
        if name != "pos_embed":
            tensor.data.copy_(torch.from_numpy(value(name, tuple(tensor.shape))))
    x = torch.from_numpy(image(side, side, channels)).permute(0, 3, 1, 2)
    y = net.eval()(x, torch.tensor(NOISE), torch.tensor(LABELS))
    return y.permute(0, 2, 3, 1).contiguous().numpy()


with torch.no_grad():
    dit, lightning = sys.argv[1:]
    DiT = load(dit, "models").DiT
    LightningDiT = load(lightning, "models.lightningdit").LightningDiT
    arrays = {
        "patch2": output(DiT(input_size=8, patch_size=2, in_channels=3, **SMALL), 8, 3),
        "patch4": output(DiT(input_size=16, patch_size=4, in_channels=2, **SMALL), 16, 2),
    }
    features = {"use_swiglu": True, "use_rope": True, "use_qknorm": True}
    for name, rms in (("lightning_rms", True), ("lightning_layer", False)):
        net = LightningDiT(input_size=8, patch_size=1, in_channels=3, use_rmsnorm=rms, **features, **SMALL)
        arrays[name] = output(net, 8, 3)
np.savez_compressed(HERE / "dit.npz", **arrays)
print((HERE / "dit.npz").stat().st_size, {k: (v.shape, float(v.std())) for k, v in arrays.items()})
