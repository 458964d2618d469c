"""Make edm2.npz: outputs of NVlabs/edm2's U-Net on weights and inputs that the tests make anew.

Run it where torch is, with the path of a checkout of https://github.com/NVlabs/edm2 (or of a folder that holds its
training/networks_edm2.py): PYTHONPATH=tests python tests/golden/make_edm2.py CHECKOUT
"""

import pathlib
import sys

import numpy as np
import torch
from golden.make_songunet import reference
from golden.unet_state import NOISE, SETUPS, edm2, label
from golden.weights import image

HERE = pathlib.Path(__file__).parent


def main(checkout: str) -> None:
    networks = reference(pathlib.Path(checkout) / "training" / "networks_edm2.py")
    arrays = {}
    for name, setup in SETUPS.items():
        net = networks.UNet(
            setup.height,
            setup.channels,
            setup.classes,
            model_channels=setup.model_channels,
            channel_mult=list(setup.multipliers),
            num_blocks=setup.blocks,
            attn_resolutions=list(setup.attention),
            channels_per_head=setup.head_channels,
        ).eval()
        for entry, tensor in net.state_dict().items():
            tensor.copy_(torch.as_tensor(edm2(entry, tuple(tensor.shape))))
        x = torch.from_numpy(image(setup.height, setup.width, setup.channels)).permute(0, 3, 1, 2)
        classes = torch.from_numpy(label(setup.classes)[:, :-1]) if setup.classes else None
        out = net(x, torch.from_numpy(NOISE), classes)
        arrays[name] = out.permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"{name}_parameters"] = np.array(sum(p.numel() for p in net.parameters()))
    np.savez_compressed(HERE / "edm2.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main(*sys.argv[1:])
