"""Weights of Stable Diffusion 3's MMDiT from published files, for `MMDiT(**MEDIUM, …)`."""

import dataclasses

import numpy as np

from jaxgen.typing import Tree
from jaxgen.weights.published import LEAVES, load
from jaxgen.weights.stacks import depth, layer_of, translated_stack

Arrays = dict[str, np.ndarray]

SINGLE = "model.diffusion_model."  # where the file of a whole model has its denoiser

# Names in diffusers' files, and in those of Stability AI.
TOP = {
    "patch": ("pos_embed.proj", "x_embedder.proj"),
    "condition/noise1": ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    "condition/noise2": ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    "pooled1": ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
    "pooled2": ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
    "text": ("context_embedder", "context_embedder"),
    "modulation": ("norm_out.linear", "final_layer.adaLN_modulation.1"),
    "out": ("proj_out", "final_layer.linear"),
}
DIFFUSERS = {
    "image_modulation": ("norm1.linear",),
    "image_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "image_query_norm": ("attn.norm_q",),
    "image_key_norm": ("attn.norm_k",),
    "image_out": ("attn.to_out.0",),
    "image_up": ("ff.net.0.proj",),
    "image_down": ("ff.net.2",),
    "text_modulation": ("norm1_context.linear",),
    "text_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "text_kv": ("attn.add_k_proj", "attn.add_v_proj"),
    "text_query_norm": ("attn.norm_added_q",),
    "text_key_norm": ("attn.norm_added_k",),
    "text_out": ("attn.to_add_out",),
    "text_up": ("ff_context.net.0.proj",),
    "text_down": ("ff_context.net.2",),
}
STABILITY = {
    "modulation": "adaLN_modulation.1",
    "qkv": "attn.qkv",
    "kv": "attn.qkv",
    "query_norm": "attn.ln_q",
    "key_norm": "attn.ln_k",
    "out": "attn.proj",
    "up": "mlp.fc1",
    "down": "mlp.fc2",
}
STREAMS = {"image": "x_block", "text": "context_block"}


@dataclasses.dataclass(frozen=True)
class Sd3Mmdit:
    """The denoiser in a .safetensors file: diffusers' transformer/diffusion_pytorch_model, or one of a whole model.

    The table of positions that such files hold is left out: it is `CentredSinCos()`, for the medium size. So are the
    text's queries in the last block, which nothing reads.
    """

    path: str

    def read(self, variables: Tree) -> Tree:
        """Return the file's arrays for an `MMDiT`.

        Raises UserError if there is no such file, or it holds another net or size.
        """
        stored = load(self.path)
        if any(name.startswith(SINGLE) for name in stored):
            stored = load(self.path, SINGLE)
        single = any(name.startswith("joint_blocks.") for name in stored)
        last = depth(variables)
        found = _single(stored, last) if single else _diffusers(stored, last)

        def names(path: str) -> tuple[str, ...]:
            layer, rest = layer_of(path)
            module, leaf = rest.rsplit("/", 1)
            if module in TOP:
                return (f"{TOP[module][single]}.{LEAVES[leaf]}",)
            module = module.removeprefix("last/")
            layer = last if layer is None else layer
            if not single:
                return tuple(f"transformer_blocks.{layer}.{name}.{LEAVES[leaf]}" for name in DIFFUSERS[module])
            stream, kind = module.split("_", 1)
            return (f"joint_blocks.{layer}.{STREAMS[stream]}.{STABILITY[kind]}.{LEAVES[leaf]}",)

        return translated_stack(found, variables, names, self.path)


def _diffusers(stored: Arrays, last: int) -> Arrays:
    """Return diffusers' arrays in the order of Stability AI's, without those that the net does not have."""
    block = f"transformer_blocks.{last}."
    dropped = ("pos_embed.pos_embed", *(f"{block}attn.{name}" for name in ("add_q_proj.", "norm_added_q.")))
    found = {name: array for name, array in stored.items() if not name.startswith(dropped)}
    for name in found:
        if name.startswith(("norm_out.linear.", f"{block}norm1_context.linear.")):
            found[name] = np.concatenate(np.split(found[name], 2)[::-1])  # scale and shift there, shift and scale here
    return _patch(found, "pos_embed.proj.weight")


def _single(stored: Arrays, last: int) -> Arrays:
    """Return Stability AI's arrays without those that the net does not have."""
    attention = f"joint_blocks.{last}.context_block.attn."
    found = {
        name: array
        for name, array in stored.items()
        if name != "pos_embed" and not name.startswith(f"{attention}ln_q.")
    }
    for name in found:
        if name.startswith(f"{attention}qkv."):
            found[name] = found[name][len(found[name]) // 3 :]
    return _patch(found, "x_embedder.proj.weight")


def _patch(found: Arrays, name: str) -> Arrays:
    """Return the arrays with the patches' convolution [out c h w] as a dense layer [out h·w·c]."""
    if name in found and found[name].ndim == 4:
        kernel = found[name].transpose(0, 2, 3, 1)
        return found | {name: kernel.reshape(len(kernel), -1)}
    return found
