"""Sharding rules: values, functions of (path, shape, mesh), outside the models.

Optimizer state and averages carry their parameter's path and shape at the end of their own, so that a rule that
places a parameter places them alike.
"""

import dataclasses
import math
import re
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen import tree
from jaxgen.typing import Tree, UserError


@runtime_checkable
class Rule(Protocol):
    """Where one array of the state lies."""

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec: ...


@dataclasses.dataclass(frozen=True)
class Replicated:
    """Every device holds the whole array (data parallelism)."""

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        return PartitionSpec()


@dataclasses.dataclass(frozen=True)
class Fsdp:
    """Split the largest dimension that divides by the axis; small arrays stay whole (ZeRO-3, arXiv:1910.02054)."""

    axis: str = "fsdp"
    smallest: int = 2**18
    """Arrays of fewer elements are replicated: moving them costs more than keeping them."""

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        if self.axis not in mesh.shape:
            raise UserError(f"rule: the mesh has no axis {self.axis!r}; it has {', '.join(mesh.shape)}")
        size = mesh.shape[self.axis]
        fits = [i for i, n in enumerate(shape) if n % size == 0]
        if size == 1 or not fits or math.prod(shape) < self.smallest:
            return PartitionSpec()
        # The last of the largest: output channels, where a kernel's two channel counts agree.
        split = max(fits, key=lambda i: (shape[i], i))
        return PartitionSpec(*[self.axis if i == split else None for i in range(len(shape))])


@dataclasses.dataclass(frozen=True)
class ByPath:
    """The first rule whose regular expression finds the path; a path that none finds is an error."""

    rules: tuple[tuple[str, Any], ...]

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        for pattern, rule in self.rules:
            if re.search(pattern, path):
                return rule(path, shape, mesh)
        raise UserError(f"rule: no pattern of ByPath finds {path} {shape}; end the list with ('', Replicated())")


def shardings(rule: Rule, shapes: Tree, mesh: Mesh) -> Tree:
    """Apply a rule to every array of a tree of shapes; scalars are replicated without asking."""

    def one(path: str, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        return NamedSharding(mesh, rule(path, leaf.shape, mesh) if leaf.shape else PartitionSpec())

    return tree.map_with_path(one, shapes)
