"""Make gan_penalties.npz: torch's double backward of R1, R2 and WGAN-GP, and its losses' gradients.

The critic's weights, the pictures and where between them WGAN-GP looks are made anew by the tests. Run it where torch
is: PYTHONPATH=tests python tests/golden/make_gan_penalties.py
"""

import pathlib

import numpy as np
from golden.weights import array, he, image

HERE = pathlib.Path(__file__).parent
BATCH, SIDE, CHANNELS, WIDTH = 4, 8, 3, 6
REAL = image(SIDE, SIDE, CHANNELS, BATCH)
FAKE = np.tanh(array("fake pictures", REAL.shape, 0.7))
SHARES = np.array([0.1, 0.35, 0.6, 0.95], np.float32).reshape(BATCH, 1, 1, 1)


def parameters() -> dict[str, np.ndarray]:
    """Make the weights of two convolutions of stride 2 and a dense layer, in torch's layouts."""
    shapes = {
        "conv1": (WIDTH, CHANNELS, 3, 3),
        "conv1_bias": (WIDTH,),
        "conv2": (WIDTH, WIDTH, 3, 3),
        "conv2_bias": (WIDTH,),
    }
    dense = array("gan dense", (WIDTH * (SIDE // 4) ** 2,), 0.4)
    return {name: he(f"gan {name}", shape) for name, shape in shapes.items()} | {"dense": dense}


def main() -> None:
    import torch  # the tests import this file for what is above
    import torch.nn.functional as F

    params = {name: torch.from_numpy(value).requires_grad_() for name, value in parameters().items()}

    def critic(x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 3, 1, 2)
        for name in ("conv1", "conv2"):
            x = F.leaky_relu(F.conv2d(x, params[name], params[f"{name}_bias"], stride=2, padding=1), 0.2)
        return x.permute(0, 2, 3, 1).flatten(1) @ params["dense"]

    def slopes(x: torch.Tensor) -> torch.Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0].flatten(1)

    real, fake, shares = (torch.from_numpy(x) for x in (REAL, FAKE, SHARES))
    between = shares * real + (1 - shares) * fake
    penalties = {
        "r1": slopes(real).pow(2).sum(1),
        "r2": slopes(fake).pow(2).sum(1),
        "gp": (torch.linalg.vector_norm(slopes(between), dim=1) - 1).pow(2),
    }
    arrays = {}
    for name, rows in penalties.items():
        arrays[f"{name}_rows"] = rows
        for key, value in params.items():
            (gradient,) = torch.autograd.grad(rows.mean(), value, retain_graph=True, allow_unused=True)
            if "bias" not in key:
                arrays[f"{name}_{key}"] = gradient

    r, f = critic(real).detach().requires_grad_(), critic(fake).detach().requires_grad_()
    arrays |= {"real_logits": r, "fake_logits": f}

    def entropy(logit: torch.Tensor, target: float) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logit, torch.full_like(logit, target))

    def square(logit: torch.Tensor, target: float) -> torch.Tensor:
        return 0.5 * F.mse_loss(logit, torch.full_like(logit, target))

    losses = {
        "relativistic_pairing": (entropy(r - f, 1.0), entropy(f - r, 1.0)),
        "relativistic_average": (
            entropy(r - f.mean(), 1.0) + entropy(f - r.mean(), 0.0),
            entropy(r - f.mean(), 0.0) + entropy(f - r.mean(), 1.0),
        ),
        "non_saturating": (entropy(r, 1.0) + entropy(f, 0.0), entropy(f, 1.0)),
        "saturating": (entropy(r, 1.0) + entropy(f, 0.0), -entropy(f, 0.0)),
        "hinge": (F.relu(1 - r).mean() + F.relu(1 + f).mean(), -f.mean()),
        "least_squares": (square(r, 1.0) + square(f, 0.0), square(f, 1.0)),
        "wasserstein": (f.mean() - r.mean(), -f.mean()),
    }
    for name, sides in losses.items():
        for side, value in zip(("discriminator", "generator"), sides, strict=True):
            gradients = torch.autograd.grad(value, (r, f), retain_graph=True, allow_unused=True)
            arrays[f"{name}_{side}"] = value
            arrays[f"{name}_{side}_gradients"] = torch.stack(
                [torch.zeros_like(r) if g is None else g for g in gradients]
            )
    found = {name: value.detach().numpy() for name, value in arrays.items()}
    np.savez_compressed(HERE / "gan_penalties.npz", **found)
    print({name: (value.shape, float(np.abs(value).max())) for name, value in found.items()})


if __name__ == "__main__":
    main()
