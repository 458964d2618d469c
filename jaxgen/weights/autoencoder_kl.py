"""Weights of the autoencoders of Stable Diffusion from published files, for `AutoencoderKl`."""

import dataclasses
import math
import re
from collections.abc import Callable, Collection

import numpy as np

from jaxgen import tree
from jaxgen.errors import check_field
from jaxgen.typing import Tree
from jaxgen.weights.published import LEAVES, load, translated

SINGLE = "first_stage_model."  # where the file of a whole model has its autoencoder

# Names in diffusers' files, and in CompVis'.
RESIDUAL = {
    "norm0": ("norm1", "norm1"),
    "conv0": ("conv1", "conv1"),
    "norm1": ("norm2", "norm2"),
    "conv1": ("conv2", "conv2"),
    "skip": ("conv_shortcut", "nin_shortcut"),
}
TOP = {"in": ("conv_in", "conv_in"), "norm": ("conv_norm_out", "norm_out"), "out": ("conv_out", "conv_out")}
MIDDLE = {"middle0": ("mid_block.resnets.0", "mid.block_1"), "middle1": ("mid_block.resnets.1", "mid.block_2")}
ATTENTION = ("mid_block.attentions.0", "mid.attn_1")
# diffusers' names, those it had before, and CompVis'.
NORM = ("group_norm", "group_norm", "norm")
QKV = (("to_q", "to_k", "to_v"), ("query", "key", "value"), ("q", "k", "v"))
OUT = ("to_out.0", "proj_attn", "proj_out")


@dataclasses.dataclass(frozen=True)
class SdAutoencoder:
    """The autoencoder in a .safetensors file: diffusers' vae/diffusion_pytorch_model, CompVis', or of a whole model.

    What its denoisers were trained on is (latent - shift) · scale.
    """

    path: str
    scale: float = 0.18215
    """0.18215 for Stable Diffusion 1 and 2, 0.13025 for XL, 1.5305 for 3."""
    shift: float = 0.0
    """0.0609 for Stable Diffusion 3."""

    def __post_init__(self) -> None:
        check_field(self, "scale", 0 < self.scale < math.inf, "above 0")

    def read(self, variables: Tree) -> Tree:
        """Return the file's arrays for an `AutoencoderKl`.

        Raises UserError if there is no such file, or it holds another net or size.
        """
        stored = load(self.path)
        if any(name.startswith(SINGLE) for name in stored):
            stored = load(self.path, SINGLE)
        params = {"params": variables["params"]}
        read = translated(stored, params, names([path for path, _ in tree.leaves(params)], stored), self.path)
        channels = variables["latent"]["mean"].shape
        latent = {"mean": self.shift, "std": 1 / self.scale}
        return {**read, "latent": {name: np.full(channels, value, np.float32) for name, value in latent.items()}}


def names(paths: list[str], stored: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Return the table of names for a net of these paths, and a file that has the names `stored`."""
    compvis = any(".mid.block_1." in name for name in stored)
    form = 2 if compvis else 1 if any(".attentions.0.query." in name for name in stored) else 0
    top = max(int(match.group(1)) for path in paths if (match := re.search(r"encoder/down(\d+)", path)))

    def of(path: str) -> tuple[str, ...]:
        _, half, *inner, leaf = path.split("/")
        match inner:
            case []:
                modules: tuple[str, ...] = (f"{half}_conv",)
            case [part] if part in TOP:
                modules = (f"{half}.{TOP[part][compvis]}",)
            case ["attention", part]:
                parts = {"norm": (NORM[form],), "qkv": QKV[form], "out": (OUT[form],)}[part]
                modules = tuple(f"{half}.{ATTENTION[compvis]}.{name}" for name in parts)
            case [part]:
                modules = (f"{half}.{_resampled(part, top, compvis)}",)
            case [part, name]:
                at = MIDDLE[part][compvis] if part in MIDDLE else _block(part, top, compvis)
                modules = (f"{half}.{at}.{RESIDUAL[name][compvis]}",)
            case _:
                raise ValueError(path)
        return tuple(f"{module}.{LEAVES[leaf]}" for module in modules)

    return of


def _block(part: str, top: int, compvis: bool) -> str:
    """Return the name of the residual block "down1_0" or "up1_0"; diffusers counts a decoder's levels from below."""
    way, level, block = _split(part)
    if compvis:
        return f"{way}.{level}.block.{block}"
    return f"{way}_blocks.{level if way == 'down' else top - level}.resnets.{block}"


def _resampled(part: str, top: int, compvis: bool) -> str:
    """Return the name of the convolution "down1", which enters a level, or "up1", which leaves it."""
    way, level, _ = _split(part)
    if compvis:
        return f"down.{level - 1}.downsample.conv" if way == "down" else f"up.{level}.upsample.conv"
    return (
        f"down_blocks.{level - 1}.downsamplers.0.conv"
        if way == "down"
        else f"up_blocks.{top - level}.upsamplers.0.conv"
    )


def _split(part: str) -> tuple[str, int, int]:
    """Split "down1_0" into "down", 1 and 0, and "down1" into "down", 1 and -1."""
    match = re.fullmatch(r"(down|up)(\d+)(?:_(\d+))?", part)
    assert match is not None  # the nets' own names
    way, level, block = match.groups()
    return way, int(level), -1 if block is None else int(block)
