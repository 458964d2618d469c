"""Published .safetensors files, which have torch's names and layouts; a table of names makes them a net's weights."""

import math
import pathlib
from collections.abc import Callable

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.typing import Tree
from jaxgen.weights.files import fitted

Names = Callable[[str], tuple[str, ...]]
"""What holds the array of a path such as "params/conv/kernel": one name, or several whose outputs lie side by side."""

LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def load(path: str, prefix: str = "") -> dict[str, np.ndarray]:
    """Return a file's arrays whose names begin with the prefix, by what follows it.

    Raises UserError for a file that is missing, of another kind, or without such names.
    """
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"there are no weights {file}; give the path of a .safetensors file")
    try:
        stored = load_file(file)
    except SafetensorError as error:
        raise UserError(f"{file} is not a .safetensors file: {error}") from error
    found = {name.removeprefix(prefix): array for name, array in stored.items() if name.startswith(prefix)}
    if not found:
        raise UserError(f"{file} has no {prefix}*, but {', '.join(sorted(stored)[:2])}: it holds another net's weights")
    return found


def translated(stored: dict[str, np.ndarray], variables: Tree, names: Names, where: str) -> Tree:
    """Return torch's arrays as a tree like `variables`, of its types.

    A kernel's axes come in flax's order, and outputs may have several axes where torch has one. Raises UserError,
    naming the first of them, where the file lacks an array, has another shape, or has more than the net wants.
    """
    arrays, used = {}, set()
    for path, like in tree.leaves(variables):
        sources = names(path)
        if missing := [name for name in sources if name not in stored]:
            raise UserError(
                f"{where} has no {missing[0]}, which is the net's {path}; choose the net's size by the file"
            )
        used.update(sources)
        arrays[path] = _like(np.concatenate([stored[name] for name in sources]), path, like.shape)
    if unused := sorted(stored.keys() - used):
        raise UserError(f"{where} has {unused[0]}, of no use to the net, and {len(unused) - 1} more: it is smaller")
    return fitted(arrays, variables, where)


def _like(value: np.ndarray, path: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return torch's (out, in, …) as flax's (…, in, out), in the net's shape if it fits; an embedding as it is."""
    if value.ndim == 1:
        return value.reshape(shape) if value.size == math.prod(shape) else value
    if not path.endswith("embedding"):
        value = value.transpose(*range(2, value.ndim), 1, 0)
    if value.shape != shape and value.shape[:-2] == (1, 1):  # a 1×1 convolution there, a dense layer here
        value = value[0, 0]
    fits = value.ndim == 2 and value.size == math.prod(shape) and value.shape[0] == shape[0]
    return value.reshape(shape) if fits else value
