"""What both sides of the golden test of CLIP's text encoders are made of: sizes, token ids, and names of two kinds."""

import dataclasses

import numpy as np

VOCABULARY, LENGTH = 23, 9
END = VOCABULARY - 1
# Padded with the end, with zeros, and without padding; an end ends each.
TOKENS = np.array([[21, 3, 7, 22, 22, 22, 22, 22, 22], [21, 5, 22, 0, 0, 0, 0, 0, 0], [21, 1, 2, 3, 4, 5, 6, 7, 22]])


@dataclasses.dataclass(frozen=True)
class Setup:
    """A tiny encoder."""

    activation: str
    end: int
    """The reference's eos_token_id: 2 makes it look for the highest id."""
    width: int = 16
    depth: int = 3
    heads: int = 2
    projection: int = 12


SETUPS = {"openai": Setup("quick_gelu", 2), "openclip": Setup("gelu", END, heads=4)}

MODULES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
TOP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}


def as_openai(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays of transformers by the names, and in the layouts, of OpenAI's files and OpenCLIP's."""
    made = {new: state[old] for old, new in TOP.items()} | {"text_projection": state["text_projection.weight"].T}
    layer = "text_model.encoder.layers."
    for name, array in state.items():
        if not name.startswith(layer):
            continue
        number, rest = name.removeprefix(layer).split(".", 1)
        module, leaf = rest.rsplit(".", 1)
        block = f"transformer.resblocks.{number}."
        if module in MODULES:
            made[f"{block}{MODULES[module]}.{leaf}"] = array
        elif module == "self_attn.q_proj":
            parts = [state[f"{layer}{number}.self_attn.{part}_proj.{leaf}"] for part in "qkv"]
            made[f"{block}attn.in_proj_{leaf}"] = np.concatenate(parts)
    return made
