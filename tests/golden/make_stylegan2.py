"""Make stylegan2.npz: outputs of NVlabs/stylegan2-ada-pytorch's nets on weights and inputs that the tests make anew.

Run it where torch is, with the path of a checkout of https://github.com/NVlabs/stylegan2-ada-pytorch (or of a folder
that holds its training/networks.py and torch_utils/ops):
PYTHONPATH=tests python tests/golden/make_stylegan2.py CHECKOUT
"""

import contextlib
import pathlib
import sys
import types
from typing import Any

import numpy as np
import torch
from golden.stylegan2_state import BASE, CLASSES, LABEL, LATENT, LAYERS, SIDE, STYLE, TRUNCATION, WIDEST, Z, value
from golden.weights import image

HERE = pathlib.Path(__file__).parent


class Fields(dict):
    __getattr__ = dict.__getitem__


def reference(checkout: str) -> Any:
    """Import the nets with stand-ins for what pickles classes, checks shapes and compiles CUDA."""
    package = types.ModuleType("torch_utils")
    package.__path__ = [str(pathlib.Path(checkout) / "torch_utils")]
    package.persistence = types.ModuleType("torch_utils.persistence")
    package.persistence.persistent_class = lambda cls: cls
    package.custom_ops = types.ModuleType("torch_utils.custom_ops")
    package.misc = types.ModuleType("torch_utils.misc")
    package.misc.profiled_function = lambda f: f
    package.misc.assert_shape = lambda tensor, shape: None
    package.misc.suppress_tracer_warnings = contextlib.nullcontext
    tools = types.ModuleType("dnnlib")
    tools.EasyDict = Fields
    for module in (package, package.persistence, package.custom_ops, package.misc, tools):
        sys.modules[module.__name__] = module
    sys.path.insert(0, checkout)
    from training import networks  # pyrefly: ignore[missing-import]

    return networks


def filled(net: torch.nn.Module) -> torch.nn.Module:
    for name, tensor in net.state_dict().items():
        if "resample_filter" not in name:
            tensor.copy_(torch.from_numpy(np.asarray(value(name, tuple(tensor.shape)))))
    return net.eval()


def main(checkout: str) -> None:
    networks = reference(checkout)
    widths = {"channel_base": BASE, "channel_max": WIDEST}
    mapping = {"num_layers": LAYERS}
    label = torch.eye(CLASSES)[torch.from_numpy(LABEL)]
    g = filled(networks.Generator(LATENT, CLASSES, STYLE, SIDE, 3, mapping_kwargs=mapping, synthesis_kwargs=widths))
    styles = g.mapping(torch.from_numpy(Z), label[:2], truncation_psi=TRUNCATION)
    picture = g.synthesis(styles, noise_mode="const")
    arrays = {"styles": styles.numpy(), "picture": picture.permute(0, 2, 3, 1).contiguous().numpy()}
    x = torch.from_numpy(image(SIDE, SIDE, 3, batch=8)).permute(0, 3, 1, 2)
    for architecture in ("resnet", "orig"):
        d = filled(networks.Discriminator(CLASSES, SIDE, 3, architecture, mapping_kwargs=mapping, **widths))
        arrays[architecture] = d(x, label)[:, 0].numpy()
    for name, net in {
        "parameters_generator": networks.Generator(512, 0, 512, 256, 3),
        "parameters_resnet": networks.Discriminator(0, 256, 3, "resnet"),
        "parameters_orig": networks.Discriminator(0, 256, 3, "orig"),
    }.items():
        arrays[name] = np.array(sum(p.numel() for p in net.parameters()))
    np.savez_compressed(HERE / "stylegan2.npz", **arrays)
    print({k: (v.shape, float(v.std()), float(v.mean())) for k, v in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main(*sys.argv[1:])
