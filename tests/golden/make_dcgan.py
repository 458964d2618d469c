"""Make dcgan.npz: outputs of DCGAN and SNGAN in torch on weights and inputs that the tests make anew.

DCGAN is layer for layer that of pytorch/examples. SNGAN is put together from the blocks of kwotsin/mimicry (PyPI's
torch-mimicry 0.1.16), with its own spectral norm rather than torch's, because that one does as the paper says when it
evaluates too; it doubles maps by repeating cells, as the paper's authors do, where mimicry interpolates; and its ReLUs
make new arrays, where mimicry's overwrite the map that a block's skip has yet to read. The generator's
convolutions in front of batch norm have biases that the norm takes away: here they are 0. Run it where torch is, with
the path of a checkout of mimicry: PYTHONPATH=tests python tests/golden/make_dcgan.py CHECKOUT
"""

import importlib.util
import itertools
import pathlib
import sys
import types

import numpy as np
import torch
from golden import dcgan_state as state
from torch import nn

HERE = pathlib.Path(__file__).parent


def reference(checkout: pathlib.Path) -> types.ModuleType:
    """Import mimicry's residual blocks, and no more of it: the package wants torchvision and others."""
    package = types.ModuleType("torch_mimicry.modules")
    sys.modules |= {"torch_mimicry": types.ModuleType("torch_mimicry"), "torch_mimicry.modules": package}

    def load(name: str) -> types.ModuleType:
        path = checkout / "torch_mimicry" / "modules" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"torch_mimicry.modules.{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    package.spectral_norm = load("spectral_norm")
    for name in ("SNConv2d", "SNLinear", "SNEmbedding"):
        setattr(package, name, getattr(package.spectral_norm, name))
    package.ConditionalBatchNorm2d = load("layers").ConditionalBatchNorm2d
    blocks = load("resblocks")
    blocks.GBlock._upsample_conv = lambda self, x, conv: conv(nn.functional.interpolate(x, scale_factor=2))
    package.resblocks = blocks
    return package


def dcgan(latent: int, up: tuple[int, ...], down: tuple[int, ...]) -> tuple[nn.Module, nn.Module]:
    layers = [nn.ConvTranspose2d(latent, up[0], 4, 1, 0, bias=False)]
    for before, after in zip(up, (*up[1:], 3), strict=True):
        layers += [nn.BatchNorm2d(before), nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False)]
    generator = nn.Sequential(*layers, nn.Tanh())
    layers = [nn.Conv2d(3, down[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for before, after in itertools.pairwise(down):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2)]
    return generator, nn.Sequential(*layers, nn.Conv2d(down[-1], 1, 4, 1, 0, bias=False), nn.Flatten(0))


class Generator(nn.Module):
    def __init__(self, modules: types.ModuleType, latent: int, classes: int, width: int, stages: int):
        super().__init__()
        self.l1 = nn.Linear(latent, 16 * width)
        make = modules.resblocks.GBlock
        self.block = nn.ModuleList([make(width, width, upsample=True, num_classes=classes) for _ in range(stages)])
        self.b5, self.c5 = nn.BatchNorm2d(width), nn.Conv2d(width, 3, 3, 1, padding=1)

    def forward(self, z, y):
        h = self.l1(z).view(len(z), -1, 4, 4)
        for block in self.block:
            h = block(h, y)
        return torch.tanh(self.c5(torch.relu(self.b5(h))))


class Discriminator(nn.Module):
    def __init__(self, modules: types.ModuleType, classes: int, width: int):
        super().__init__()
        make = modules.resblocks.DBlock
        self.block = nn.ModuleList(
            [modules.resblocks.DBlockOptimized(3, width), *(make(width, width, downsample=i == 1) for i in (1, 2, 3))]
        )
        self.l5 = modules.SNLinear(width, 1)
        if classes:
            self.l_y = modules.SNEmbedding(classes, width)

    def forward(self, x, y):
        for block in self.block:
            x = block(x)
        x = torch.relu(x).sum((2, 3))
        logit = self.l5(x)[:, 0]
        return logit if y is None else logit + (self.l_y(y) * x).sum(1)


def fill(net: nn.Module, name: str) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    with torch.no_grad():
        for entry, tensor in net.state_dict().items():
            if not entry.endswith(("num_batches_tracked", "sn_sigma")):
                tensor.copy_(torch.from_numpy(state.value(name, entry, tuple(tensor.shape))))
        if name == "sngan_generator":
            for entry, tensor in net.state_dict().items():
                if entry.startswith("block") and entry.endswith("bias"):
                    tensor.zero_()
    return net


def last(x: torch.Tensor) -> np.ndarray:
    """Return an array with the channels last."""
    x = x.detach()
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).contiguous().numpy()


def count(net: nn.Module) -> np.ndarray:
    return np.array(sum(p.numel() for p in net.parameters()))


def main(checkout: str) -> None:
    modules = reference(pathlib.Path(checkout))
    z, picture = torch.from_numpy(state.Z), torch.from_numpy(state.IMAGE).permute(0, 3, 1, 2).contiguous()
    label, cotangent = torch.from_numpy(state.LABEL), torch.from_numpy(state.COTANGENT)
    arrays = {}

    generator, discriminator = dcgan(state.LATENT, state.GENERATOR, state.DISCRIMINATOR)
    for name, net, x in (("generator", generator, z[:, :, None, None]), ("discriminator", discriminator, picture)):
        fill(net, f"dcgan_{name}")
        arrays[f"dcgan_{name}_eval"] = last(net.eval()(x))
        arrays[f"dcgan_{name}_train"] = last(net.train()(x))
    for name, net in zip(
        ("generator", "discriminator"), dcgan(100, (512, 256, 128, 64), (64, 128, 256, 512)), strict=True
    ):
        arrays[f"dcgan_{name}_parameters"] = count(net)

    generator = fill(Generator(modules, state.LATENT, state.CLASSES, state.WIDTH, 2), "sngan_generator")
    arrays["sngan_generator_eval"] = last(generator.eval()(z, label))
    arrays["sngan_generator_train"] = last(generator.train()(z, label))

    discriminator = fill(Discriminator(modules, state.CLASSES, state.WIDTH), "sngan_discriminator").train()
    # Mimicry iterates over the table's rows, jaxgen over its columns: they meet where the iteration has converged.
    for _ in range(500):
        discriminator.l_y.sn_weights()
    arrays["sngan_discriminator_eval"] = last(discriminator.eval()(picture, label))
    logit = discriminator.train()(picture, label)
    arrays["sngan_discriminator_train"] = last(logit)
    (logit * cotangent).sum().backward()
    for name, parameter in discriminator.named_parameters():
        arrays[f"sngan_gradient/{name}"] = parameter.grad.numpy()
    for name, buffer in discriminator.named_buffers():
        if name.endswith("sn_u") and not name.startswith("l_y"):
            arrays[f"sngan_u/{name}"] = buffer.numpy()
    arrays["sngan_generator_parameters"] = count(Generator(modules, 128, 0, 256, 3))
    arrays["sngan_discriminator_parameters"] = count(Discriminator(modules, 0, 128))
    np.savez_compressed(HERE / "dcgan.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
