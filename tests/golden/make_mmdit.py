"""Make mmdit.npz: outputs of diffusers' SD3Transformer2DModel on weights and inputs that the tests make anew.

    PYTHONPATH=tests python tests/golden/make_mmdit.py     (with torch and diffusers)

It also has the names and shapes of the state_dict, and of the same net as Stability AI's files have it: diffusers'
translation of those gives the former.
"""

import pathlib

import numpy as np
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from golden.mmdit_state import CHANNELS, LARGEST, NOISE, POOLED, SETUPS, SIDE, TEXT, Setup, pooled, text, value
from golden.weights import image

HERE = pathlib.Path(__file__).parent
TABLE = "pos_embed.pos_embed"


def published(net: SD3Transformer2DModel, setup: Setup) -> dict[str, torch.Tensor]:
    """Return arrays by the names of Stability AI's files, filled by them."""
    width = setup.heads * setup.head
    norms = {"attn.ln_q": (setup.head,), "attn.ln_k": (setup.head,)} if setup.qk_norm else {}
    shapes: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (width, CHANNELS, 2, 2),
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "y_embedder.mlp.0": (width, POOLED),
        "y_embedder.mlp.2": (width, width),
        "context_embedder": (width, TEXT),
        "final_layer.adaLN_modulation.1": (2 * width, width),
        "final_layer.linear": (4 * CHANNELS, width),
    }
    for i in range(setup.depth):
        for stream in ("x_block", "context_block"):
            ends = stream == "context_block" and i == setup.depth - 1
            layers: dict[str, tuple[int, ...]] = {
                "adaLN_modulation.1": ((2 if ends else 6) * width, width),
                "attn.qkv": (3 * width, width),
            } | norms
            if not ends:
                layers |= {"attn.proj": (width, width), "mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
            shapes |= {f"joint_blocks.{i}.{stream}.{name}": shape for name, shape in layers.items()}
    made = {"pos_embed": net.state_dict()[TABLE]}
    for name, shape in shapes.items():
        made[f"{name}.weight"] = torch.from_numpy(value(f"{name}.weight", shape))
        if len(shape) > 1:
            made[f"{name}.bias"] = torch.from_numpy(value(f"{name}.bias", shape[:1]))
    return made


def names(state: dict[str, torch.Tensor]) -> np.ndarray:
    return np.array([f"{k} {','.join(map(str, v.shape))}" for k, v in state.items() if "pos_embed" != k != TABLE])


def main() -> None:
    arrays = {}
    for name, setup in SETUPS.items():
        net = SD3Transformer2DModel(
            sample_size=2 * SIDE,
            patch_size=2,
            in_channels=CHANNELS,
            num_layers=setup.depth,
            attention_head_dim=setup.head,
            num_attention_heads=setup.heads,
            joint_attention_dim=TEXT,
            caption_projection_dim=setup.heads * setup.head,
            pooled_projection_dim=POOLED,
            out_channels=CHANNELS,
            pos_embed_max_size=LARGEST,
            qk_norm="rms_norm" if setup.qk_norm else None,
        ).eval()
        x = torch.from_numpy(image(setup.height, setup.width, CHANNELS)).permute(0, 3, 1, 2)

        def output(net: SD3Transformer2DModel = net, x: torch.Tensor = x) -> np.ndarray:
            made = net(x, torch.from_numpy(text()), torch.from_numpy(pooled()), torch.from_numpy(NOISE)).sample
            return made.permute(0, 2, 3, 1).contiguous().numpy()

        for entry, tensor in net.state_dict().items():
            if entry != TABLE:
                tensor.copy_(torch.from_numpy(value(entry, tuple(tensor.shape))))
        arrays[name], arrays[f"{name}_names"] = output(), names(net.state_dict())
        theirs = published(net, setup)
        arrays[f"{name}_single_names"] = names(theirs)
        net.load_state_dict(convert_sd3_transformer_checkpoint_to_diffusers(theirs))
        arrays[f"{name}_single"] = output()
    np.savez_compressed(HERE / "mmdit.npz", **arrays)
    print((HERE / "mmdit.npz").stat().st_size, {k: (v.shape, v.dtype) for k, v in arrays.items()})
    print({k: float(v.std()) for k, v in arrays.items() if v.dtype == np.float32})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
