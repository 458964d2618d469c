"""Make patch_nce.npz: the PatchNCE loss by torch's cross-entropy over one positive and the other places, with gradient.

PYTHONPATH=tests python tests/golden/make_patch_nce.py     (with torch)
"""

import pathlib

import numpy as np
import torch
from golden.weights import array
from torch.nn import functional

HERE = pathlib.Path(__file__).parent
TEMPERATURE = 0.07


def loss(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Return f[b n] of unit vectors f[b n d]: the positive first, then the negatives of the same image."""
    key = key.detach()
    positive = (query * key).sum(-1, keepdim=True)
    negative = torch.bmm(query, key.transpose(1, 2))
    diagonal = torch.eye(query.shape[1], dtype=torch.bool)[None]
    negative = negative.masked_fill(diagonal, -torch.inf)
    logits = torch.cat([positive, negative], dim=-1) / TEMPERATURE
    b, n, m = logits.shape
    target = torch.zeros(b * n, dtype=torch.long)
    return functional.cross_entropy(logits.reshape(b * n, m), target, reduction="none").reshape(b, n)


def main() -> None:
    query, key = (torch.from_numpy(array(name, (2, 7, 5), 1.0)) for name in ("query", "key"))
    query.requires_grad_()
    rows = loss(functional.normalize(query, dim=-1), functional.normalize(key, dim=-1))
    rows.mean().backward()
    arrays = {"loss": rows.detach().numpy(), "gradient": query.grad.numpy()}
    np.savez_compressed(HERE / "patch_nce.npz", **arrays)
    print(arrays)


main()
