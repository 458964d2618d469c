"""Weights in a .safetensors file, by the paths that jaxgen gives them: "params/head/score/kernel"."""

import dataclasses
import pathlib

import numpy as np
from flax import traverse_util
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.typing import Tree


@dataclasses.dataclass(frozen=True)
class Safetensors:
    """Variables of one net, as `write` writes them."""

    path: str

    def read(self, variables: Tree) -> Tree:
        """Return the file's arrays, in the types of these variables.

        Raises UserError unless the file is there and has exactly their paths and shapes.
        """
        file = pathlib.Path(self.path).expanduser()
        if not file.is_file():
            raise UserError(f"there are no weights {file}; give the path of a .safetensors file")
        try:
            stored = load_file(file)
        except SafetensorError as error:
            raise UserError(f"{file} is not a .safetensors file: {error}") from error
        return fitted({name: np.asarray(array) for name, array in stored.items()}, variables, str(file))


def write(variables: Tree, file: pathlib.Path) -> None:
    """Write a net's variables, {"params": …, "batch_stats": …}, for `Safetensors` to read."""
    save_file({path: np.ascontiguousarray(leaf) for path, leaf in tree.leaves(variables)}, file)


def fitted(stored: dict[str, np.ndarray], variables: Tree, where: str) -> Tree:
    """Return stored arrays as a tree like `variables`.

    Raises UserError, naming the first paths, where paths or shapes differ.
    """
    wanted = dict(tree.leaves(variables))
    problems = [f"{path} is missing" for path in wanted if path not in stored]
    problems += [f"{path} is of no use to the net" for path in stored if path not in wanted]
    problems += [
        f"{path} is {list(stored[path].shape)}, the net wants {list(wanted[path].shape)}"
        for path in wanted.keys() & stored.keys()
        if stored[path].shape != wanted[path].shape
    ]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{where} does not fit the net: {'; '.join(problems[:3])}{more}")
    return traverse_util.unflatten_dict(
        {tuple(path.split("/")): stored[path].astype(wanted[path].dtype) for path in wanted}
    )
