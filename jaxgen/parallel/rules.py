"""Sharding rules: values, functions of (path, shape, mesh), that say how each array of the state is split.

Optimizer state and EMA carry their parameter's path and shape at the end of their own, so that a rule that splits a
parameter splits them alike.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.typing import Tree


@runtime_checkable
class Rule(Protocol):
    """How one array of the state is split over the devices."""

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
        size = _size(self.axis, mesh)
        fits = [i for i, n in enumerate(shape) if n % size == 0]
        if size == 1 or not fits or math.prod(shape) < self.smallest:
            return PartitionSpec()
        # The last of the largest: output channels, where a kernel's two channel counts agree.
        return _along(max(fits, key=lambda i: (shape[i], i)), self.axis, shape)


@dataclasses.dataclass(frozen=True)
class Split:
    """Split one dimension, counted from the last as -1; meant for `ByPath`, which selects the arrays."""

    dimension: int
    axis: str = "tensor"

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        size = _size(self.axis, mesh)
        if not 0 <= len(shape) + self.dimension < len(shape):
            raise UserError(f"rule: {path} {shape} has no dimension {self.dimension}")
        if shape[self.dimension] % size:
            raise UserError(
                f"rule: dimension {self.dimension} of {path} {shape} does not divide over the {size} devices of "
                f"{self.axis!r}; set --mesh.{self.axis} to a divisor of {shape[self.dimension]}"
            )
        return PartitionSpec() if size == 1 else _along(len(shape) + self.dimension, self.axis, shape)


@dataclasses.dataclass(frozen=True)
class ByPath:
    """The first rule whose regular expression finds the path.

    A path that no pattern finds is an error, and for `shardings` so is a pattern that finds no path of the state.
    """

    rules: tuple[tuple[str, Any], ...]
    """(pattern, rule); end with ("", rule), which finds every path."""

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        for pattern, rule in self.rules:
            if re.search(pattern, path):
                return rule(path, shape, mesh)
        raise UserError(f"rule: no pattern of ByPath finds {path} {shape}; end the list with ('', Replicated())")


@dataclasses.dataclass(frozen=True)
class Composed:
    """One rule after the other, each on what those before it left of the array: tensor parallelism, then FSDP."""

    rules: tuple[Any, ...]

    def __call__(self, path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
        axes: list[tuple[str, ...]] = [() for _ in shape]
        for rule in self.rules:
            for i, entry in enumerate(rule(path, shape, mesh)):
                more = () if entry is None else entry if isinstance(entry, tuple) else (entry,)
                axes[i] += more
                shape = (*shape[:i], shape[i] // math.prod(mesh.shape[axis] for axis in more), *shape[i + 1 :])
        used = [axis for some in axes for axis in some]
        if len(used) > len(set(used)):
            raise UserError(f"rule: two parts of Composed split {path} over the same axis; give each its own")
        # A single name stands for itself, and trailing dimensions that are whole are left out.
        names = [some[0] if len(some) == 1 else some or None for some in axes]
        while names and names[-1] is None:
            names.pop()
        return PartitionSpec(*names)


def _size(axis: str, mesh: Mesh) -> int:
    if axis not in mesh.shape:
        raise UserError(f"rule: the mesh has no axis {axis!r}; it has {', '.join(mesh.shape)}")
    return mesh.shape[axis]


def _along(dimension: int, axis: str, shape: tuple[int, ...]) -> PartitionSpec:
    return PartitionSpec(*[axis if i == dimension else None for i in range(len(shape))])


def _patterns(rule: Any) -> Iterator[str]:
    """Yield the patterns of a rule and of those within it."""
    match rule:
        case ByPath(rules):
            for pattern, inner in rules:
                yield pattern
                yield from _patterns(inner)
        case Composed(rules):
            for inner in rules:
                yield from _patterns(inner)


def shardings(rule: Rule, shapes: Tree, mesh: Mesh) -> Tree:
    """Apply a rule to every array of a tree of shapes; scalars are replicated without asking.

    Raises UserError where a pattern of `ByPath` finds no path of the tree.
    """
    paths = [path for path, _ in tree.leaves(shapes)]
    for pattern in _patterns(rule):
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(
                f"rule: the pattern {pattern!r} of ByPath finds no array of the state, such as {', '.join(paths[:4])}; "
                "correct it, or use the rule of another net"
            )

    def one(path: str, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        return NamedSharding(mesh, rule(path, leaf.shape, mesh) if leaf.shape else PartitionSpec())

    return tree.map_with_path(one, shapes)


def table(shapes: Tree) -> list[str]:
    """Say of each array, in a line, what it is, how it is split, and the bytes that each device holds of it."""
    rows = []
    for path, leaf in tree.leaves(shapes):
        local = math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        size = "×".join(map(str, leaf.shape)) or "1"
        rows.append((path, f"{leaf.dtype} {size}", str(tuple(leaf.sharding.spec) or "whole"), local))
    wide = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        f"{path:<{wide[0]}}  {what:<{wide[1]}}  {spec:<{wide[2]}}  {local:>14,}" for path, what, spec, local in rows
    ]
    head = f"{'array':<{wide[0]}}  {'type and shape':<{wide[1]}}  {'split over':<{wide[2]}}  bytes a device"
    return [head, *lines, f"{'all':<{sum(wide) + 4}}  {sum(row[3] for row in rows):>14,}"]
