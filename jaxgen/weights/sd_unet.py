"""Weights of Stable Diffusion 1's U-Net from published files, for `TextUNet(**SD1)`."""

import dataclasses
import re
from collections.abc import Callable

from jaxgen import tree
from jaxgen.typing import Tree
from jaxgen.weights.published import LEAVES, load, translated

SINGLE = "model.diffusion_model."  # where the file of a whole model has its U-Net

LAYER = {
    "norm1": ("norm1",),
    "qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "out": ("attn1.to_out.0",),
    "norm2": ("norm2",),
    "query": ("attn2.to_q",),
    "kv": ("attn2.to_k", "attn2.to_v"),
    "out_text": ("attn2.to_out.0",),
    "norm3": ("norm3",),
    "up": ("ff.net.0.proj",),
    "down": ("ff.net.2",),
}
TRANSFORMER = {"norm": "norm", "in": "proj_in", "out": "proj_out"}
# Names in diffusers' files, and in those of a whole model (CompVis).
BLOCK = {
    "norm0": ("norm1", "in_layers.0"),
    "conv0": ("conv1", "in_layers.2"),
    "shift": ("time_emb_proj", "emb_layers.1"),
    "norm1": ("norm2", "out_layers.0"),
    "conv1": ("conv2", "out_layers.3"),
    "skip": ("conv_shortcut", "skip_connection"),
}
TOP = {
    "in": ("conv_in", "input_blocks.0.0"),
    "embed0": ("time_embedding.linear_1", "time_embed.0"),
    "embed1": ("time_embedding.linear_2", "time_embed.2"),
    "pooled0": ("add_embedding.linear_1", "label_emb.0.0"),
    "pooled1": ("add_embedding.linear_2", "label_emb.0.2"),
    "norm": ("conv_norm_out", "out.0"),
    "out": ("conv_out", "out.2"),
}


@dataclasses.dataclass(frozen=True)
class SdUnet:
    """The U-Net in a .safetensors file: diffusers' unet/diffusion_pytorch_model, or one of a whole model."""

    path: str

    def read(self, variables: Tree) -> Tree:
        """Return the file's arrays for a `TextUNet`.

        Raises UserError if there is no such file, or it holds another net or size.
        """
        stored = load(self.path)
        if single := any(name.startswith(SINGLE) for name in stored):
            stored = load(self.path, SINGLE)
        paths = [path for path, _ in tree.leaves(variables)]
        return translated(stored, variables, names(paths, single=single), self.path)


def names(paths: list[str], *, single: bool) -> Callable[[str], tuple[str, ...]]:
    """Return the table of names for a net of these paths; `single`: of a whole model's file."""
    places = [
        tuple(map(int, match.groups())) for path in paths if (match := re.match(r"params/encode(\d+)_(\d+)", path))
    ]
    levels, blocks = (max(numbers) + 1 for numbers in zip(*places, strict=True))
    attending = {path.split("/")[1] for path in paths if "/transformer/" in path}

    def diffusers(part: str) -> tuple[str, str]:
        """Return the names of a block's residual part and of its transformer; of a convolution, its name first."""
        kind, numbers = _split(part)
        match kind, *numbers:
            case "middle", i:
                return f"mid_block.resnets.{i}", "mid_block.attentions.0"
            case "encode", level, i:
                return f"down_blocks.{level}.resnets.{i}", f"down_blocks.{level}.attentions.{i}"
            case "decode", level, i:
                up = levels - 1 - level
                return f"up_blocks.{up}.resnets.{i}", f"up_blocks.{up}.attentions.{i}"
            case "down", level:
                return f"down_blocks.{level - 1}.downsamplers.0.conv", ""
        return f"up_blocks.{levels - 1 - numbers[0]}.upsamplers.0.conv", ""

    def compvis(part: str) -> tuple[str, str]:
        kind, numbers = _split(part)
        match kind, *numbers:
            case "middle", i:
                return f"middle_block.{2 * i}", "middle_block.1"
            case "encode", level, i:
                at = f"input_blocks.{level * (blocks + 1) + i + 1}"
                return f"{at}.0", f"{at}.1"
            case "decode", level, i:
                at = f"output_blocks.{(levels - 1 - level) * (blocks + 1) + i}"
                return f"{at}.0", f"{at}.1"
            case "down", level:
                return f"input_blocks.{level * (blocks + 1)}.0.op", ""
        place = 2 if f"decode{numbers[0]}_{blocks}" in attending else 1
        return f"output_blocks.{(levels - 1 - numbers[0]) * (blocks + 1) + blocks}.{place}.conv", ""

    def of(path: str) -> tuple[str, ...]:
        _, part, *inner, leaf = path.split("/")
        if part in TOP:
            modules: tuple[str, ...] = (TOP[part][single],)
        else:
            residual, transformer = (compvis if single else diffusers)(part)
            match inner:
                case []:
                    modules = (residual,)
                case ["transformer", name]:
                    modules = (f"{transformer}.{TRANSFORMER[name]}",)
                case ["transformer", layer, name]:
                    at = f"{transformer}.transformer_blocks.{layer.removeprefix('layer')}"
                    modules = tuple(f"{at}.{module}" for module in LAYER[name])
                case _:
                    modules = (f"{residual}.{BLOCK[inner[0]][single]}",)
        return tuple(f"{module}.{LEAVES[leaf]}" for module in modules)

    return of


def _split(part: str) -> tuple[str, tuple[int, ...]]:
    """Split "encode1_0" into "encode" and (1, 0)."""
    kind, *numbers = re.findall(r"[a-z]+|\d+", part)
    return kind, tuple(map(int, numbers))
