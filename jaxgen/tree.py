"""Pytrees seen as flat tables of (path, leaf): counting, hashing and matching by path."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxgen.typing import Tree


def path_string(path: tuple[Any, ...]) -> str:
    """Write a key path as "nets/net/params/conv/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) in the order of the tree."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield path_string(path), leaf


def map_with_path(f: Callable[[str, Any], Any], tree: Tree) -> Tree:
    """Map f(path, leaf) over the tree's leaves."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: f(path_string(path), leaf), tree)


def count(tree: Tree) -> int:
    """Number of scalars in the tree; works on shapes as on arrays."""
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def digest(tree: Tree) -> str:
    """sha256 over path, type, shape and bytes of each leaf, in the order of the paths."""
    table = sorted(leaves(tree), key=lambda row: row[0])
    sha = hashlib.sha256()
    for path, leaf in table:
        array = np.ascontiguousarray(jax.device_get(leaf))
        sha.update(f"{path}:{array.dtype}:{array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
