"""Make clip_text.npz: outputs of transformers' CLIPTextModelWithProjection on weights that the tests make anew.

    PYTHONPATH=tests python tests/golden/make_clip_text.py     (with torch, transformers and diffusers)

It also has the names and shapes of the state_dict. That `as_openai` gives OpenCLIP's names and layouts is checked by
diffusers' translation of them.
"""

import pathlib

import numpy as np
import torch
from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint
from golden.clip_text_state import LENGTH, SETUPS, TOKENS, VOCABULARY, Setup, as_openai
from golden.unet_state import song
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

HERE = pathlib.Path(__file__).parent


def reference(setup: Setup) -> CLIPTextModelWithProjection:
    """Return a net filled with weights by their names."""
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=LENGTH,
        hidden_size=setup.width,
        intermediate_size=4 * setup.width,
        num_hidden_layers=setup.depth,
        num_attention_heads=setup.heads,
        projection_dim=setup.projection,
        hidden_act=setup.activation,
        eos_token_id=setup.end,
    )
    net = CLIPTextModelWithProjection(config).eval()
    for name, tensor in net.state_dict().items():
        tensor.copy_(torch.from_numpy(song(name, tuple(tensor.shape))))
    return net


def main() -> None:
    arrays = {}
    for name, setup in SETUPS.items():
        net = reference(setup)
        tokens = torch.from_numpy(TOKENS)
        made = net(tokens, output_hidden_states=True)
        state = net.state_dict()
        arrays |= {
            f"{name}_last": made.last_hidden_state.numpy(),
            f"{name}_penultimate": made.hidden_states[-2].numpy(),
            f"{name}_pooled": net.text_model(tokens).pooler_output.numpy(),
            f"{name}_projected": made.text_embeds.numpy(),
            f"{name}_names": np.array([f"{k} {','.join(map(str, v.shape))}" for k, v in state.items()]),
        }
        theirs = as_openai({k: v.numpy() for k, v in state.items()})
        back = convert_open_clip_checkpoint(net, {k: torch.from_numpy(v) for k, v in theirs.items()}, prefix="")
        assert not [k for k, v in state.items() if not torch.equal(back[k], v)]
    np.savez_compressed(HERE / "clip_text.npz", **arrays)
    print((HERE / "clip_text.npz").stat().st_size, {k: v.shape for k, v in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        main()
