"""The blocks of a net: names, shapes, parameters and what feeds what, read off the net itself."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxgen import tree
from jaxgen.typing import Tree

FOLDED = ("BatchNorm", "GroupNorm", "LayerNorm", "RMSNorm", "Dropout")
MARK = "block "  # before the number of a call, in the name that its output is given


@dataclasses.dataclass(frozen=True)
class Block:
    """A module of a net, or several in a row that are seen as one."""

    name: str
    """Its path in the net, "features/conv1_1"; or "input"."""
    kind: str
    """The class of its module; "input", or "parameter" for an array that belongs to no block."""
    shape: tuple[int, ...]
    """Of what it gives, without the batch; of several arrays, the last one's."""
    parameters: int
    sources: tuple[int, ...] = (1,)
    """How many blocks back those lie whose output it takes."""


@dataclasses.dataclass
class _Call:
    path: tuple[str, ...]
    kind: str
    shape: tuple[int, ...] = ()


def blocks(module: nn.Module, *inputs: Any, train: bool = False, depth: int = 1) -> list[Block]:
    """Return the input and then the blocks of a net, in the order in which they are called.

    `inputs` are arrays or shapes, with a batch axis, as the net takes them; nothing is computed. `depth` says which
    modules are blocks: 0 the net itself, 1 its submodules, 2 theirs, and where there are none, those above. A norm and
    a dropout belong to the block before them, which gives what they give. Parameters add up to the net's.
    """
    calls, variables, jaxpr = _traced(module, inputs, train, depth)
    shown = [i for i, call in enumerate(calls) if not any(_inside(call, other.path) for other in calls)]
    owners = {path: next((i for i in shown if _owns(calls[i], path)), None) for path, _ in tree.leaves(variables)}
    # Nodes of the graph: calls by number, arrays that belong to no block by path, and the input.
    starts = [{path} if _param(path) and owners[path] is None else set() for path in owners]
    starts += [set() if i else {"input"} for i, _ in enumerate(jax.tree.leaves(inputs))]
    edges: dict[Any, set[Any]] = {i: set() for i in shown}
    _follow(jaxpr, starts, {f"{MARK}{i}": i for i in shown}, edges)
    groups = _groups(calls, shown, edges)

    found: dict[Any, Block] = {"input": Block("input", "input", jax.tree.leaves(inputs)[0].shape[1:], 0, ())}
    for path, leaf in tree.leaves(variables):
        if _param(path) and owners[path] is None:
            found[path] = Block(path.removeprefix("params/"), "parameter", leaf.shape, math.prod(leaf.shape), ())
    rows = {node: row for row, node in enumerate([*found, *dict.fromkeys(groups.values())])}
    for group in dict.fromkeys(groups.values()):
        parts = [i for i in shown if groups[i] == group]
        size = sum(math.prod(x.shape) for path, x in tree.leaves(variables) if owners[path] in parts and _param(path))
        sources = {rows[groups.get(node, node)] for i in parts for node in edges[i]}
        back = tuple(sorted(rows[group] - row for row in sources if row < rows[group]))
        name = "/".join(calls[group].path) or calls[group].kind
        found[group] = Block(name, calls[group].kind, calls[parts[-1]].shape, size, back)
    return list(found.values())


def _traced(module: nn.Module, inputs: tuple[Any, ...], train: bool, depth: int) -> tuple[list[_Call], Tree, Jaxpr]:
    """Return the calls of a net's modules, its variables' shapes, and its jaxpr with the calls' outputs marked."""
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    calls: list[_Call] = []
    open_: list[tuple[str, ...]] = []

    def mark(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path = context.module.path
        outside = len(path) > depth or (depth > 0 and not path) or path in open_  # nn.remat calls a module twice
        if context.method_name != "__call__" or outside:
            return call(*args, **kwargs)
        number, kind = len(calls), type(context.module).__name__.removeprefix("Checkpoint")
        calls.append(_Call(path, kind))
        open_.append(path)
        out = call(*args, **kwargs)
        open_.pop()
        calls[number].shape = jax.tree.leaves(out)[-1].shape[1:]
        return jax.tree.map(lambda x: checkpoint_name(x, f"{MARK}{number}"), out)

    def apply(variables: Tree, inputs: Any) -> Any:
        with nn.intercept_methods(mark):
            return module.apply(variables, *inputs, train=train, rngs=keys, mutable=True)[0]

    variables = jax.eval_shape(lambda inputs: module.init(keys, *inputs, train=train), inputs)
    return calls, variables, jax.make_jaxpr(apply)(variables, inputs).jaxpr


def _groups(calls: Sequence[_Call], shown: Sequence[int], edges: Mapping[int, set[Any]]) -> dict[Any, int]:
    """Map each call to the first one of its block: a norm or a dropout to what it takes, if that is the one before."""
    groups: dict[Any, int] = {}
    for before, i in zip([-1, *shown], shown, strict=False):
        groups[i] = groups[before] if calls[i].kind in FOLDED and edges[i] == {before} else i
    return groups


def _inside(call: _Call, path: tuple[str, ...]) -> bool:
    """Say whether a path leads to a submodule of what is called."""
    return len(path) > len(call.path) and path[: len(call.path)] == call.path


def _param(path: str) -> bool:
    return path.startswith("params/")


def _owns(call: _Call, path: str) -> bool:
    """Say whether the path of a variable, "params/…", leads into what is called."""
    return tuple(path.split("/")[1:])[: len(call.path)] == call.path


def _follow(
    jaxpr: Jaxpr, starts: Sequence[set[Any]], marks: Mapping[str, int], edges: dict[Any, set[Any]]
) -> list[set[Any]]:
    """Follow nodes through a jaxpr, add to `edges` which of them each marked one takes, and return what comes out."""
    reached: dict[Any, set[Any]] = dict(zip(jaxpr.invars, starts, strict=True))

    def of(variables: Sequence[Any]) -> list[set[Any]]:
        return [set() if isinstance(v, Literal) else reached.get(v, set()) for v in variables]

    for equation in jaxpr.eqns:
        given = of(equation.invars)
        gives = [set().union(*given)] * len(equation.outvars)
        mark = equation.params.get("name") if equation.primitive.name == "name" else None
        if mark in marks:
            edges[marks[mark]] |= gives[0] - {marks[mark]}
            gives = [{marks[mark]}]
        for inner in _inner(equation.params):
            if len(inner.outvars) == len(gives) and len(inner.invars) <= len(given):
                gives = _follow(inner, given[len(given) - len(inner.invars) :], marks, edges)
        reached.update(zip(equation.outvars, gives, strict=True))
    return of(jaxpr.outvars)


def _inner(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    for value in jax.tree.leaves(list(params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)):
        if isinstance(value, ClosedJaxpr | Jaxpr):
            yield value.jaxpr if isinstance(value, ClosedJaxpr) else value
