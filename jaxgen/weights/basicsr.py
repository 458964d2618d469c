"""Weights of nets for super-resolution under BasicSR's names, for those of `jaxgen.models.super_resolution`."""

import dataclasses
import re

from jaxgen import tree
from jaxgen.typing import Tree
from jaxgen.weights.published import LEAVES, load, translated

TOP = {"first": "conv_first", "body": "conv_body", "high": "conv_hr", "last": "conv_last"}


@dataclasses.dataclass(frozen=True)
class BasicSr:
    """A .safetensors file of RRDBNet, MSRResNet or SRVGGNetCompact (ESRGAN, Real-ESRGAN), for Rrdb, SrResNet, Compact.

    The authors' files are torch's: save their `params_ema` by safetensors.torch.save_file.
    """

    path: str

    def read(self, variables: Tree) -> Tree:
        """Return the file's arrays for a net.

        Raises UserError if there is no such file, or it holds another net or size.
        """
        paths = [path for path, _ in tree.leaves(variables)]
        return translated(load(self.path), variables, lambda path: names(path, paths), self.path)


def names(path: str, paths: list[str]) -> tuple[str]:
    """Return BasicSR's name of one of a net's paths."""
    _, *modules, leaf = path.split("/")
    if not modules:  # a slope of Compact's rectifiers, which stand between its convolutions
        return (f"body.{2 * int(leaf.removeprefix('slope')) + 1}.weight",)
    place = "/".join(modules)
    if found := re.fullmatch(r"block(\d+)/dense(\d)_conv(\d)", place):
        i, j, k = map(int, found.groups())
        stem = f"body.{i}.rdb{j + 1}.conv{k + 1}"
    elif found := re.fullmatch(r"block(\d+)_conv(\d)", place):
        stem = f"body.{found[1]}.conv{int(found[2]) + 1}"
    elif found := re.fullmatch(r"up(\d)", place):
        # RRDBNet's two convolutions, or those before MSRResNet's shuffles.
        stem = f"{'conv_up' if any('dense0' in other for other in paths) else 'upconv'}{int(found[1]) + 1}"
    elif found := re.fullmatch(r"conv(\d+)", place):
        stem = f"body.{2 * int(found[1])}"
    elif place == "last" and any("slope" in other for other in paths):
        stem = f"body.{2 * sum('slope' in other for other in paths)}"
    else:
        stem = TOP[place]
    return (f"{stem}.{LEAVES[leaf]}",)
