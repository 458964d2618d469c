"""Make text_unet.npz: outputs of diffusers' UNet2DConditionModel on weights and inputs that the tests make anew.

    PYTHONPATH=tests python tests/golden/make_text_unet.py     (with torch and diffusers)

It also has the names and shapes of the state_dict, and for each name what a whole model's file calls it.
"""

import pathlib

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from golden.text_unet_state import CHANNELS, MASK, NOISE, SETUPS, TEXT, Setup, text
from golden.unet_state import song
from golden.weights import image

HERE = pathlib.Path(__file__).parent
RESIDUAL = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")
ENDS = ("input_blocks.0.0", "time_embed.0", "time_embed.2", "out.0", "out.2")


def single_file(setup: Setup, net: UNet2DConditionModel) -> list[str]:
    """Return what the file of a whole model calls each entry of the state_dict, as diffusers translates it."""
    state = net.state_dict()
    attention = [name.removeprefix("mid_block.attentions.0.") for name in state if "mid_block.attentions.0." in name]
    residual = [f"{module}.{kind}" for module in RESIDUAL for kind in ("weight", "bias")]
    known = [f"{module}.{kind}" for module in ENDS for kind in ("weight", "bias")]

    def block(at: str, attends: bool) -> None:
        known.extend(f"{at}.0.{name}" for name in residual)
        known.extend(f"{at}.1.{name}" for name in attention if attends)

    place, levels = 1, len(setup.multipliers)
    for level in range(levels):
        for _ in range(setup.blocks):
            block(f"input_blocks.{place}", level in setup.attention)
            place += 1
        if level < levels - 1:
            known.extend(f"input_blocks.{place}.0.op.{kind}" for kind in ("weight", "bias"))
            place += 1
    known.extend(f"middle_block.{i}.{name}" for i in (0, 2) for name in residual)
    known.extend(f"middle_block.1.{name}" for name in attention)
    place = 0
    for level in reversed(range(levels)):
        for i in range(setup.blocks + 1):
            block(f"output_blocks.{place}", level in setup.attention)
            if level and i == setup.blocks:
                at = f"output_blocks.{place}.{2 if level in setup.attention else 1}"
                known.extend(f"{at}.conv.{kind}" for kind in ("weight", "bias"))
            place += 1
    numbered = {f"model.diffusion_model.{name}": torch.tensor(i) for i, name in enumerate(known)}
    found = convert_ldm_unet_checkpoint(numbered, dict(net.config))
    assert state.keys() <= found.keys()  # skip_connection is there only where widths differ
    return [known[int(found[name])] for name in state]


def main() -> None:
    arrays = {}
    for name, setup in SETUPS.items():
        kind = ["CrossAttn" * (level in setup.attention) for level in range(len(setup.multipliers))]
        net = UNet2DConditionModel(
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            block_out_channels=[setup.model_channels * m for m in setup.multipliers],
            down_block_types=[f"{k}DownBlock2D" for k in kind],
            up_block_types=[f"{k}UpBlock2D" for k in reversed(kind)],
            layers_per_block=setup.blocks,
            transformer_layers_per_block=setup.depth,
            attention_head_dim=setup.heads,  # diffusers takes it for the number of heads
            cross_attention_dim=TEXT,
            norm_num_groups=setup.groups,
            use_linear_projection=setup.linear,
        ).eval()
        for entry, tensor in net.state_dict().items():
            tensor.copy_(torch.from_numpy(song(entry, tuple(tensor.shape))))
        x = torch.from_numpy(image(setup.height, setup.width, CHANNELS)).permute(0, 3, 1, 2)
        mask = torch.from_numpy(MASK) if setup.masked else None
        out = net(x, torch.from_numpy(NOISE), torch.from_numpy(text()), encoder_attention_mask=mask).sample
        state = net.state_dict()
        arrays[name] = out.permute(0, 2, 3, 1).contiguous().numpy()
        arrays[f"{name}_names"] = np.array([f"{k} {','.join(map(str, v.shape))}" for k, v in state.items()])
        if not setup.linear:  # diffusers' translation keeps 1×1 convolutions
            arrays[f"{name}_single"] = np.array(single_file(setup, net))
    np.savez_compressed(HERE / "text_unet.npz", **arrays)
    print((HERE / "text_unet.npz").stat().st_size, {k: v.shape for k, v in arrays.items()})
    print({k: float(arrays[k].std()) for k in SETUPS})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
