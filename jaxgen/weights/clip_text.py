"""Weights of CLIP's text encoders from published files, for `TextTransformer(**CLIP_L)` and others."""

import dataclasses
import re

import numpy as np

from jaxgen.errors import UserError
from jaxgen.typing import Tree
from jaxgen.weights.published import LEAVES, load
from jaxgen.weights.stacks import layer_of, translated_stack

# Names in transformers' files, and in those of OpenAI and OpenCLIP.
BLOCK = {
    "norm1": (("layer_norm1",), ("ln_1",)),
    "qkv": (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("attn.in_proj",)),
    "out": (("self_attn.out_proj",), ("attn.out_proj",)),
    "norm2": (("layer_norm2",), ("ln_2",)),
    "up": (("mlp.fc1",), ("mlp.c_fc",)),
    "down": (("mlp.fc2",), ("mlp.c_proj",)),
}
TOP = {
    "tokens/embedding": ("embeddings.token_embedding.weight", "token_embedding.weight"),
    "positions/embedding": ("embeddings.position_embedding.weight", "positional_embedding"),
    "norm/scale": ("final_layer_norm.weight", "ln_final.weight"),
    "norm/bias": ("final_layer_norm.bias", "ln_final.bias"),
    "projection/kernel": ("text_projection.weight", "text_projection"),
}
LAYERS = ("encoder.layers.", "transformer.resblocks.")


@dataclasses.dataclass(frozen=True)
class ClipText:
    """The text encoder in a .safetensors file, alone, beside CLIP's image encoder, or in a whole model.

    Files of transformers have "text_model." before their names or not (it left in version 5.6); those of OpenAI and
    OpenCLIP have names of their own.
    """

    path: str
    prefix: str = ""
    """What the encoder's names begin with, where a file has several: "text_encoders.clip_l." of Stable Diffusion 3."""

    def read(self, variables: Tree) -> Tree:
        """Return the file's arrays for a `TextTransformer`.

        Raises UserError if there is no such file, it holds another net or size, or several encoders.
        """
        stored = load(self.path, self.prefix)
        place, openai = self._place(stored)
        outer = place.removesuffix("text_model.")  # transformers keeps the projection outside
        known = {place + name[openai] for name in TOP.values()} | {outer + TOP["projection/kernel"][openai]}
        layers = place + LAYERS[openai]
        found = {
            name.removeprefix(outer).removeprefix("text_model."): array
            for name, array in stored.items()
            if name in known or name.startswith(layers)
        }
        projection = TOP["projection/kernel"][openai]
        if "projection" not in variables["params"]:
            found.pop(projection, None)
        elif openai and projection in found:
            found[projection] = found[projection].T  # there it is [in out], as no layer of torch is

        def names(path: str) -> tuple[str, ...]:
            layer, rest = layer_of(path)
            if layer is None:
                return (TOP[rest][openai],)
            module, leaf = rest.split("/")
            ends = [f"{LAYERS[openai]}{layer}.{name}" for name in BLOCK[module][openai]]
            return tuple(f"{end}{'_' if end.endswith('in_proj') else '.'}{LEAVES[leaf]}" for end in ends)

        return translated_stack(found, variables, names, self.path)

    def _place(self, stored: dict[str, np.ndarray]) -> tuple[str, bool]:
        """Return what the names of the encoder's arrays begin with, and whether they are OpenAI's."""
        places = []
        for name in sorted(stored):
            if match := re.fullmatch(r"(.*?)(embeddings\.)?token_embedding\.weight", name):
                places.append((match[1], match[2] is None))
        if not places:
            raise UserError(
                f"{self.path} has no {self.prefix}*token_embedding.weight: it holds no text encoder of CLIP"
            )
        if len(places) > 1:
            several = " and ".join(self.prefix + place for place, _ in places)
            raise UserError(f"{self.path} has several text encoders, {several}; choose one by `prefix`")
        return places[0]
