"""Gradient transformations that optax does not have."""

import re

import jax
import optax
from jaxtyping import Array

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.nn.magnitude import unit
from jaxgen.typing import Tree


def check_found(field: str, pattern: str, params: Tree) -> None:
    """Raise UserError unless the expression in this field of the optimizer finds a parameter."""
    paths = [path for path, _ in tree.leaves(params)]
    if not any(re.search(pattern, path) for path in paths):
        raise UserError(f"optimizer.{field}: {pattern!r} finds no parameter; there are {', '.join(paths[:8])} …")


def force_weight_norm(pattern: str) -> optax.GradientTransformation:
    """Replace a step p + u of the kernels found by one that ends at unit(p + u)."""

    def init(params: Tree) -> optax.EmptyState:
        check_found("forced_weight_norm", pattern, params)
        return optax.EmptyState()

    def project(updates: Tree, state: optax.EmptyState, params: Tree | None = None) -> tuple[Tree, optax.EmptyState]:
        def one(path: str, u: Array, p: Array) -> Array:
            return unit(p + u) - p if re.search(pattern, path) else u

        paths = tree.map_with_path(lambda path, _: path, updates)
        return jax.tree.map(one, paths, updates, params), state

    return optax.GradientTransformation(init, project)  # pyrefly: ignore[bad-argument-type]


def scale_by_path(multipliers: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    def factor(path: str) -> float:
        return next((f for pattern, f in multipliers if re.search(pattern, path)), 1.0)

    def init(params: Tree) -> optax.EmptyState:
        for pattern, _ in multipliers:
            check_found("lr_multipliers", pattern, params)
        return optax.EmptyState()

    def scale(updates: Tree, state: optax.EmptyState, params: Tree | None = None) -> tuple[Tree, optax.EmptyState]:
        del params
        return tree.map_with_path(lambda path, u: u * factor(path), updates), state

    return optax.GradientTransformation(init, scale)  # pyrefly: ignore[bad-argument-type]
