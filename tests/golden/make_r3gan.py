"""Make r3gan.npz: outputs of brownvc/R3GAN's nets on weights and inputs that the tests make anew, and their sizes.

Run it where torch is, with the path of a checkout of https://github.com/brownvc/R3GAN (or of a folder that holds its
R3GAN/Networks.py, Resamplers.py and FusedOperators.py): PYTHONPATH=tests python tests/golden/make_r3gan.py CHECKOUT
"""

import importlib
import pathlib
import sys
import types

import numpy as np
import torch
from golden.weights import array, image

HERE = pathlib.Path(__file__).parent

WIDTHS, GROUP_WIDTH, LATENT, CLASSES = (12, 8, 4), 4, 5, 3  # as in tests/test_models_r3gan.py
LABEL = torch.tensor([2, 0])
PRESETS = {  # of the reference's train.py: widths, cardinalities, classes
    "cifar10": ([768] * 4, [96] * 4, 10),
    "stacked_mnist": ([768] * 4, [96] * 4, None),
    "ffhq256": ([768, 768, 768, 768, 384, 192, 96], [96, 96, 96, 96, 48, 24, 12], None),
}


def reference(checkout: str) -> types.ModuleType:
    """Import the nets with the plain torch versions of their CUDA operations, which their files hold too."""
    for name in ("bias_act", "upfirdn2d"):
        sys.modules[f"torch_utils.ops.{name}"] = types.ModuleType(name)
    sys.modules["torch_utils"] = types.ModuleType("torch_utils")
    sys.modules["torch_utils.ops"] = operations = types.ModuleType("torch_utils.ops")
    operations.bias_act = operations.upfirdn2d = None
    sys.path.insert(0, checkout)
    resamplers = importlib.import_module("R3GAN.Resamplers")
    resamplers.InterpolativeUpsampler = resamplers.InterpolativeUpsamplerReference
    resamplers.InterpolativeDownsampler = resamplers.InterpolativeDownsamplerReference
    fused = importlib.import_module("R3GAN.FusedOperators")
    fused.BiasedActivation = fused.BiasedActivationReference
    return importlib.import_module("R3GAN.Networks")


def nets(
    networks: types.ModuleType, latent: int, widths: list[int], groups: list[int], classes: int | None, embedding: int
) -> tuple[torch.nn.Module, torch.nn.Module]:
    blocks = [2] * len(widths)
    told = [(classes, size) if classes else (None, 0) for size in (latent, embedding)]
    generator = networks.Generator(latent, widths, groups, blocks, 2, *told[0])
    discriminator = networks.Discriminator(widths[::-1], groups[::-1], blocks, 2, *told[1])
    return generator, discriminator


def fill(net: torch.nn.Module, prefix: str) -> torch.nn.Module:
    with torch.no_grad():
        for name, tensor in net.named_parameters():
            tensor.copy_(torch.from_numpy(array(prefix + name, tuple(tensor.shape), 0.1 if tensor.ndim == 1 else None)))
    return net


def main(checkout: str) -> None:
    networks = reference(checkout)
    arrays = {}
    z = torch.from_numpy(array("z", (2, LATENT), 1.0))
    for name, classes in (("plain", None), ("conditional", CLASSES)):
        groups = [2 * width // GROUP_WIDTH for width in WIDTHS]
        generator, discriminator = nets(networks, LATENT, [*WIDTHS], groups, classes, WIDTHS[0])
        label = torch.nn.functional.one_hot(LABEL, CLASSES).float() if classes else None
        x = torch.from_numpy(image(16, 16).transpose(0, 3, 1, 2).copy()).requires_grad_()
        logit = fill(discriminator, "d.")(x, label)
        (gradient,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
        # The second derivative in the weights of a penalty: by that of the highest resolution's first 3×3 kernel.
        (kernel,) = [
            w for n, w in discriminator.named_parameters() if n == "MainLayers.0.Layers.0.LinearLayer2.Layer.weight"
        ]
        (second,) = torch.autograd.grad((gradient**2).sum(), kernel)
        pictures = fill(generator, "g.")(z, label)
        for part, tensor in (("pictures", pictures), ("gradient", gradient)):
            arrays[f"{name}_{part}"] = tensor.detach().permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"{name}_logit"] = logit.detach().numpy()
        arrays[f"{name}_second"] = second.permute(2, 3, 1, 0).contiguous().numpy()
    for name, (widths, groups, classes) in PRESETS.items():
        with torch.device("meta"):
            both = nets(networks, 64, widths, groups, classes, widths[0])
        arrays[f"{name}_parameters"] = np.array([sum(p.numel() for p in net.parameters()) for net in both])
    np.savez_compressed(HERE / "r3gan.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})
    print({k: v for k, v in arrays.items() if k.endswith("parameters")})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
