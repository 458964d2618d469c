"""Published weights of nets whose equal layers are stacked: one array here, with the depth as its first axis, is one a
layer there."""

import re

import jax
import numpy as np
from flax import traverse_util

from jaxgen import tree
from jaxgen.typing import Tree
from jaxgen.weights.published import Names, translated

STACK = re.compile(r"\bblocks/")


def translated_stack(stored: dict[str, np.ndarray], variables: Tree, names: Names, where: str) -> Tree:
    """Return torch's arrays as a tree like `variables`, as `translated` does.

    For the layers of "params/blocks/qkv/kernel" [depth …] `names` is asked for "params/blocks/0/qkv/kernel" and so on.
    """
    single, stacks = {}, {}
    for path, like in tree.leaves(variables):
        if not STACK.search(path):
            single[path] = like
            continue
        stacks[path] = [STACK.sub(f"blocks/{i}/", path) for i in range(like.shape[0])]
        single |= dict.fromkeys(stacks[path], jax.ShapeDtypeStruct(like.shape[1:], like.dtype))
    found = dict(tree.leaves(translated(stored, _nested(single), names, where)))
    whole = {path: np.stack([found.pop(layer) for layer in layers]) for path, layers in stacks.items()}
    return _nested(found | whole)


def _nested(leaves: dict[str, object]) -> Tree:
    return traverse_util.unflatten_dict({tuple(path.split("/")): leaf for path, leaf in leaves.items()})


def layer_of(path: str) -> tuple[int | None, str]:
    """Split "params/blocks/3/qkv/kernel" into 3 and "qkv/kernel"; None and what follows "params/" for other paths."""
    match = re.fullmatch(r"params/blocks/(\d+)/(.+)", path)
    return (int(match[1]), match[2]) if match else (None, path.removeprefix("params/"))


def depth(variables: Tree) -> int:
    """Return how many layers are stacked; 0 where none are."""
    return next((leaf.shape[0] for path, leaf in tree.leaves(variables) if STACK.search(path)), 0)
