"""Make losses.npz: losses, gradients and metrics of torch, segmentation_models_pytorch and torchmetrics.

    PYTHONPATH=tests python tests/golden/make_losses.py     (with torch, torchmetrics, segmentation_models_pytorch)

The test takes logits and masks from `case`, so torch is imported where it is used.
"""

import pathlib

import numpy as np
from golden.weights import array

SIZES = ((64, 64), (37, 53))
CLASSES = 9  # 0..4 are true somewhere, 5 and 6 are predicted only, 7 and 8 neither
PRESENT = 5
WEIGHTS = tuple(np.linspace(0.5, 2.0, CLASSES).round(3).tolist())
SMOOTHING = 0.1
KEEP = 0.3


def case(h: int, w: int, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """Make logits f32[2 h w classes] that lean to the truth, and a mask i32[2 h w], 255 on a sixth of the pixels.

    With one class the mask holds 0, 1 and 255.
    """
    name = f"losses {h}x{w}x{classes}"
    logits = array(f"{name} logits", (2, h, w, classes), 2.0)
    ids = array(f"{name} mask", (2, h, w, PRESENT if classes > 1 else 2), 1.0).argmax(-1)
    if classes > 1:
        logits[..., 7:] -= 30.0
        logits += 2.0 * np.eye(classes, dtype=np.float32)[ids]
    ignored = array(f"{name} ignored", (2, h, w), 1.0) > 1.0
    return logits, np.where(ignored, 255, ids).astype(np.int32)


def main() -> None:
    import torch
    from torch.nn import functional as F

    # torchvision's compiled operators may be missing for this torch; none is used, but its import asks for their names.
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    from segmentation_models_pytorch import losses as smp
    from torchmetrics.functional import classification as tm

    def by_image(loss, x, y):  # theirs pool the batch, ours is a mean over images
        return torch.stack([loss(x[i : i + 1], y[i : i + 1]) for i in range(len(x))])

    def hardest(x, y):
        kept = []
        for i in range(len(x)):
            cost = F.cross_entropy(x[i : i + 1], y[i : i + 1], ignore_index=255, reduction="none")[y[i : i + 1] != 255]
            kept.append(torch.topk(cost, round(KEEP * len(cost))).values)
        return torch.cat(kept).mean()

    def focal(x, y):  # softmax focal loss: smp's multiclass form is one sigmoid for each class
        cost = F.cross_entropy(x, y, ignore_index=255, reduction="none")[y != 255]
        return ((1 - torch.exp(-cost)) ** 2 * cost).mean()

    weights = torch.tensor(WEIGHTS)
    options = dict(mode="multiclass", ignore_index=255)
    losses = {
        "cross_entropy": lambda x, y: F.cross_entropy(x, y, ignore_index=255),
        "weighted": lambda x, y: F.cross_entropy(x, y, weights, ignore_index=255),
        "smoothed": lambda x, y: F.cross_entropy(x, y, ignore_index=255, label_smoothing=SMOOTHING),
        "both": lambda x, y: F.cross_entropy(x, y, weights, ignore_index=255, label_smoothing=SMOOTHING),
        "hardest": hardest,
        "focal": focal,
        "dice": lambda x, y: by_image(smp.DiceLoss(**options), x, y),
        "jaccard": lambda x, y: by_image(smp.JaccardLoss(**options), x, y),
        "tversky": lambda x, y: by_image(smp.TverskyLoss(**options, alpha=0.3, beta=0.7), x, y),
        "lovasz": lambda x, y: by_image(smp.LovaszLoss(**options), x, y),
    }
    binary = {
        "binary": lambda x, y: F.binary_cross_entropy_with_logits(x[y != 255], y[y != 255].float()),
        "binary_focal": lambda x, y: smp.FocalLoss(mode="binary", ignore_index=255)(x, y),
    }
    out = {}
    for h, w in SIZES:
        logits, mask = case(h, w)
        y = torch.from_numpy(mask).long()
        for name, loss in losses.items():
            x = torch.from_numpy(logits).permute(0, 3, 1, 2).contiguous().requires_grad_()
            value = loss(x, y)
            (gradient,) = torch.autograd.grad(value.mean(), x)
            out[f"{name} {h}x{w}"] = value.detach().numpy()
            out[f"{name} {h}x{w} gradient"] = gradient.permute(0, 2, 3, 1)[:, ::8, ::8].numpy()

        logits1, mask1 = case(h, w, 1)
        for name, loss in binary.items():
            value = loss(torch.from_numpy(logits1[..., 0]), torch.from_numpy(mask1).long())
            out[f"{name} {h}x{w}"] = value.numpy()

        found = torch.from_numpy(logits.argmax(-1))
        common = dict(num_classes=CLASSES, ignore_index=255)
        out[f"metric confusion {h}x{w}"] = tm.multiclass_confusion_matrix(found, y, **common).numpy()
        out[f"metric iou {h}x{w}"] = tm.multiclass_jaccard_index(found, y, average="none", **common).numpy()
        out[f"metric miou {h}x{w}"] = tm.multiclass_jaccard_index(found, y, average="macro", **common).numpy()
        out[f"metric fwiou {h}x{w}"] = tm.multiclass_jaccard_index(found, y, average="weighted", **common).numpy()
        out[f"metric dice {h}x{w}"] = tm.multiclass_f1_score(found, y, average="none", **common).numpy()
        out[f"metric acc {h}x{w}"] = tm.multiclass_recall(found, y, average="none", **common).numpy()
        out[f"metric aacc {h}x{w}"] = tm.multiclass_accuracy(found, y, average="micro", **common).numpy()
        flat = torch.from_numpy(logits).reshape(-1, CLASSES)
        kept = y.flatten() != 255
        out[f"metric top2 {h}x{w}"] = tm.multiclass_accuracy(
            flat[kept], y.flatten()[kept], num_classes=CLASSES, average="micro", top_k=2
        ).numpy()
    path = pathlib.Path(__file__).parent / "losses.npz"
    np.savez_compressed(path, **out)
    print(path.stat().st_size, {k: v.round(4).tolist() for k, v in out.items() if v.size < 10})


if __name__ == "__main__":
    main()
