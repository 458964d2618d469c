"""Make songunet.npz: outputs of NVlabs/edm's SongUNet (DDPM++) on weights and inputs that the tests make anew.

Run it where torch is, with the path of a checkout of https://github.com/NVlabs/edm (or of a folder that holds its
training/networks.py): PYTHONPATH=tests python tests/golden/make_songunet.py CHECKOUT
"""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import torch
from golden.unet_state import NOISE, SETUPS, label, song
from golden.weights import image

HERE = pathlib.Path(__file__).parent


def reference(path: pathlib.Path) -> types.ModuleType:
    """Import the file with a stand-in for its torch_utils, which pickle classes and cache constants."""
    stand_in = types.ModuleType("torch_utils")
    stand_in.persistence = types.SimpleNamespace(persistent_class=lambda cls: cls)
    stand_in.misc = types.SimpleNamespace(const_like=lambda like, value: torch.as_tensor(value, dtype=like.dtype))
    sys.modules["torch_utils"] = stand_in
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(checkout: str) -> None:
    networks = reference(pathlib.Path(checkout) / "training" / "networks.py")
    arrays = {}
    for name, setup in SETUPS.items():
        net = networks.SongUNet(
            setup.height,
            setup.channels,
            setup.channels,
            label_dim=setup.classes,
            model_channels=setup.model_channels,
            channel_mult=list(setup.multipliers),
            num_blocks=setup.blocks,
            attn_resolutions=list(setup.attention),
        ).eval()
        for module in net.modules():
            if getattr(module, "num_heads", 0):
                module.num_heads = setup.heads
        for entry, tensor in net.state_dict().items():
            if "resample_filter" not in entry:
                tensor.copy_(torch.from_numpy(song(entry, tuple(tensor.shape))))
        x = torch.from_numpy(image(setup.height, setup.width, setup.channels)).permute(0, 3, 1, 2)
        classes = torch.from_numpy(label(setup.classes)[:, :-1]) if setup.classes else None
        out = net(x, torch.from_numpy(NOISE), classes)
        arrays[name] = out.permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"{name}_parameters"] = np.array(sum(p.numel() for p in net.parameters()))
    np.savez_compressed(HERE / "songunet.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main(*sys.argv[1:])
