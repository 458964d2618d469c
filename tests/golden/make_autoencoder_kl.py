"""Make autoencoder_kl.npz: outputs of diffusers' AutoencoderKL on weights and images that the tests make anew.

PYTHONPATH=tests python tests/golden/make_autoencoder_kl.py     (with torch and diffusers)
"""

import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKL
from golden.autoencoder_state import GROUPS, SETUPS, SIDES, WIDTHS, value
from golden.weights import array, image

HERE = pathlib.Path(__file__).parent


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).contiguous().numpy()


def main() -> None:
    arrays = {}
    for name, setup in SETUPS.items():
        net = AutoencoderKL(
            block_out_channels=WIDTHS,
            down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
            up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
            layers_per_block=2,
            latent_channels=setup["channels"],
            norm_num_groups=GROUPS,
            use_quant_conv=setup["mixed"],
            use_post_quant_conv=setup["mixed"],
        ).eval()
        for entry, tensor in net.state_dict().items():
            tensor.copy_(torch.from_numpy(value(entry, tuple(tensor.shape))))
        latent = array("latent", (2, SIDES[0] // 4, SIDES[1] // 4, setup["channels"]), 1.0)
        arrays[f"{name}_moments"] = nhwc(net.encode(nchw(image(*SIDES))).latent_dist.parameters)
        arrays[f"{name}_image"] = nhwc(net.decode(nchw(latent)).sample)
        arrays[f"{name}_names"] = np.array([f"{k} {' '.join(map(str, v.shape))}" for k, v in net.state_dict().items()])
    np.savez_compressed(HERE / "autoencoder_kl.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items() if v.dtype == np.float32})


with torch.no_grad():
    main()
