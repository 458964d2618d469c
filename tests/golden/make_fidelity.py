"""Make fidelity.npz: Fréchet distance, KID, precision and recall of torchmetrics and torch-fidelity.

    PYTHONPATH=tests python tests/golden/make_fidelity.py     (with torch, torchmetrics, torch-fidelity)

The test takes the features from `case`, so torch is imported where it is used.
"""

import pathlib

import numpy as np
from golden.weights import array

# name: (real rows, generated rows, features). In "singular" there are fewer rows than features.
CASES = {"plain": (300, 300, 16), "wide": (400, 250, 64), "singular": (40, 60, 96)}
NEIGHBOURS = (1, 3, 5)


def case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Make (real, generated) features f64 that overlap in part: correlated, of unlike scales, and far from 0."""
    m, n, d = CASES[name]
    mix = array(f"fidelity {name} mix", (d, d)).astype(np.float64) * np.geomspace(1.0, 0.1, d)
    real = array(f"fidelity {name} real", (m, d), 1.0) @ mix + 3.0
    fake = array(f"fidelity {name} fake", (n, d), 0.8) @ mix + 3.0 + 0.02 * np.arange(d) / d
    return real, fake


def main() -> None:
    import torch

    # torchvision's compiled operators may be missing for this torch; none is used, but its import asks for their names.
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    from torch_fidelity.metric_kid import kernel_poly, mmd2
    from torch_fidelity.metric_prc import calculate_precision_recall_full
    from torchmetrics.image.fid import _compute_fid
    from torchmetrics.image.kid import poly_mmd

    out = {}
    for name, (m, n, _) in CASES.items():
        real, fake = (torch.from_numpy(x) for x in case(name))
        moments = [(x.mean(0), torch.cov(x.T)) for x in (real, fake)]
        out[f"{name} frechet"] = _compute_fid(*moments[0], *moments[1]).numpy()
        least = min(m, n)  # theirs take sets of one size
        a, b = real[:least], fake[:least]
        out[f"{name} kid"] = poly_mmd(a, b).numpy()
        kernel = dict(kid_kernel_poly_degree=3, kid_kernel_poly_gamma=None, kid_kernel_poly_coef0=1.0)
        kernels = (kernel_poly(x.numpy(), y.numpy(), **kernel) for x, y in ((a, a), (a, b), (b, b)))
        out[f"{name} mmd2"] = np.array(mmd2(*kernels))
        for k in NEIGHBOURS:
            out[f"{name} precision recall {k}"] = np.array(calculate_precision_recall_full(fake, real, k))
    path = pathlib.Path(__file__).parent / "fidelity.npz"
    np.savez_compressed(path, **out)
    print(path.stat().st_size, {name: value.tolist() for name, value in out.items()})


if __name__ == "__main__":
    main()
