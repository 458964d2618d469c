"""The bytes that one execution of a compiled program moves: between devices, and between main memory and compute."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

from jaxgen.plan import hlo
from jaxgen.plan.hlo import Computation, HloModule, Instruction

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Names, tuples of names, and instructions whose work is counted in another computation.
# fmt: off
_FREE = (
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "call", "conditional", "async-start",
    "after-all", "add-dependency", "optimization-barrier", "opt-barrier", "partition-id", "replica-id", "domain",
)
# fmt: on
_IDLE = re.compile(r'custom_call_target="(AllocateBuffer|ConcatBitcast)"')
_STARTS = 'custom_call_target="AsyncCollectiveStart"'
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATES = ("dynamic-update-slice", "scatter")
_ELEMENTWISE = ("bitcast", "copy", "convert", "reshape")  # so that a slice of the result needs the same of the operand


@dataclasses.dataclass(frozen=True)
class Collective:
    """One communication of a program, between devices that differ in their place along `axes` of the mesh.

    A permute whose pairs run along several axes names them all.
    """

    kind: str
    """all-gather, all-reduce, reduce-scatter, all-to-all or collective-permute."""
    axes: tuple[str, ...]
    group: int
    """Devices that take part in each communication."""
    payload: int
    """Bytes on one device: of an all-gather's result, of the argument of the other kinds."""
    times: int
    """How often one execution of the program does it."""
    op: str
    """Where it comes from: the operation's name in JAX, "" if the compiler kept none."""

    @property
    def traffic(self) -> float:
        """Bytes that each device sends, all times together.

        By the algorithms that send least: the ring's for gather, scatter and reduce (Thakur, Rabenseifner and Gropp
        2005, "Optimization of Collective Communication Operations in MPICH", doi:10.1177/1094342005051521). What an
        all-to-all or a permute sends past other devices on its way counts once.
        """
        share = 1.0 if self.kind == "collective-permute" else (self.group - 1) / self.group
        return self.times * self.payload * share * (2 if self.kind == "all-reduce" else 1)


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """Find every communication between two or more devices in a compiled program's text.

    `mesh` gives its axes' sizes in order; device i of the program is at place i of the mesh in row-major order. Raises
    ValueError if the program is for another number of devices.
    """
    devices = math.prod(mesh.values())
    partitions = re.search(r"^HloModule.*\bnum_partitions=(\d+)", text)
    if partitions and int(partitions[1]) != devices:
        raise ValueError(
            f"the program is for {partitions[1]} devices, the mesh has {devices}: pass the mesh of its compilation"
        )
    module = hlo.read(text)
    visits = hlo.visits(module, lambda computation: sum(x.traffic for x in _collectives(module, computation, mesh)))
    return [
        dataclasses.replace(x, times=times)
        for computation, times in visits
        if times
        for x in _collectives(module, computation, mesh)
    ]


def memory_traffic(text: str) -> int:
    """Count the bytes between a device's main memory and its compute units in one execution of a compiled program.

    Each instruction reads its operands once and writes its result; what is fused stays inside. Of an operand that is
    only sliced the slices count, of an array that is updated in place the update. The TPU's text says where an array
    lies: one whose layout has `S(1)`, the vector memory, or another `S(n)` costs nothing. Padding is not counted.
    """
    module = hlo.read(text)
    moved = lambda computation: sum(_moved(module, computation, x) for x in computation.instructions.values())  # noqa: E731
    return sum(times * moved(computation) for computation, times in hlo.visits(module, moved))


def _collectives(module: HloModule, computation: Computation, mesh: Mapping[str, int]) -> list[Collective]:
    result = []
    for outer, inside, x in _with_fused(module, computation):
        if x.op not in _KINDS or (_step(x) and _STARTS not in inside.root.attributes):
            continue
        axes, group = _participants(x.attributes, mesh)
        if axes:
            users = [user.op for user in inside.instructions.values() if x.name in user.operands]
            # The TPU writes a reduce-scatter as the fusion of an all-reduce and the slice that is kept.
            scatters = outer is not x and x.op == "all-reduce" and set(users) == {"dynamic-slice"}
            payload = sum(_size(inside.instructions[name].type) for name in x.operands)
            result.append(
                Collective(
                    kind="reduce-scatter" if scatters else x.op,
                    axes=axes,
                    group=group,
                    payload=payload * group if x.op == "all-gather" else payload,
                    times=1,
                    op=_origin(x) or _origin(outer),
                )
            )
    return result


def _with_fused(module: HloModule, computation: Computation) -> Iterator[tuple[Instruction, Computation, Instruction]]:
    """Every instruction, after the computation that it stands in and the fusion, if any, that it is a part of."""
    for x in computation.instructions.values():
        yield x, computation, x
        if x.op == "fusion":
            yield from ((x, inside, part) for _, inside, part in _with_fused(module, module.fused(x)))


def _origin(x: Instruction) -> str:
    name = re.search(r'op_name="((?:[^"\\]|\\.)*)"', x.attributes)
    return re.sub(r"\\(.)", r"\1", name[1]) if name else ""


def _step(x: Instruction) -> bool:
    """Whether an instruction moves a part of a collective that the TPU runs while it does other work.

    Each of the fusions that it is split into holds the whole collective; the first of them starts it, others may lie in
    loops of their own. The channel does not identify it: a function that is called twice has two collectives on one.
    """
    return x.op in _KINDS and "chain_id=" in x.attributes


def _participants(attributes: str, mesh: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
    """Axes along which the members of one group differ, and the size of a group."""
    pairs = re.search(r"source_target_pairs=\{((?:\{[\d,]*\},?)*)\}", attributes)
    sizes = tuple(mesh.values())
    groups = _lists(pairs[1]) or [[0]] if pairs else _groups(attributes, math.prod(sizes))
    places = [np.stack(np.unravel_index(group, sizes)) for group in groups]
    differ = np.any([np.any(place != place[:, :1], axis=1) for place in places], axis=0)
    axes = tuple(name for name, differs in zip(mesh, differ, strict=True) if differs)
    return axes, math.prod(mesh[x] for x in axes) if pairs else max(map(len, groups))


def _groups(attributes: str, devices: int) -> list[list[int]]:
    """Read `replica_groups`, in any of the three forms that XLA writes (its hlo/ir/replica_group.cc)."""
    text = attributes.partition("replica_groups=")[2]
    ids = r"\[[\d,]+\](?:T\([\d,]+\))?"
    if named := re.match(rf"mesh\[(.*?)\](?:, device_ids=\(({ids}|[\d,]+)\))? \{{(.*?)\}}", text):
        order = _iota(named[2]) if "[" in (named[2] or "") else np.array(_numbers(named[2] or "") or range(devices))
        return _along(named[1], named[3], order)
    if tiled := re.match(rf"\[([\d,]+)\]<=({ids})", text):
        return _iota(tiled[2]).reshape(_numbers(tiled[1])).tolist()
    listed = re.match(r"\{((?:\{[\d,]*\},?)*)\}", text)
    return (_lists(listed[1]) if listed else []) or [list(range(devices))]


def _numbers(text: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", text)]


def _lists(text: str) -> list[list[int]]:
    return [_numbers(x) for x in re.findall(r"\{(.*?)(?:\}|$)", text)]


def _iota(text: str) -> np.ndarray:
    """0, 1, 2, ... in the order that `[4,2]T(1,0)` describes: of that shape, then transposed."""
    shape, _, turned = text.partition("T")
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return numbers.transpose(_numbers(turned) or None).reshape(-1)


def _along(axes: str, chosen: str, order: np.ndarray) -> list[list[int]]:
    """Groups along `'b','a':(2)4` of a mesh `'a'=16,'b'=2`; (2)4 is the part of size 4 that has 2 parts before it."""
    parts = [
        (name, int(low or 1), int(size or 0))
        for name, low, size in re.findall(r"'?([^',:()]+)'?(?::\((\d+)\)(\d+))?", chosen)
    ]
    shape, inside = [], []
    for name, size in re.findall(r"'?([^',=]+)'?=(\d+)", axes):
        spans = [(low, low * (length or int(size))) for part, low, length in parts if part == name]
        for low, high in itertools.pairwise(sorted({1, int(size), *itertools.chain(*spans)})):
            shape.append(high // low)
            inside.append(any(a <= low < b for a, b in spans))
    last = sorted(range(len(shape)), key=lambda i: inside[i])
    count = math.prod(n for n, within in zip(shape, inside, strict=True) if within)
    return order.reshape(shape).transpose(last).reshape(-1, count).tolist()


def _size(kind: str) -> int:
    return sum(-(-bits * count // 8) for bits, count, _ in hlo.arrays(kind))


def _resident(kind: str) -> int:
    return sum(-(-bits * count // 8) for bits, count, space in hlo.arrays(kind) if space == 0)


def _elements(kind: str) -> int:
    return sum(count for _, count, _ in hlo.arrays(kind))


def _moved(module: HloModule, computation: Computation, x: Instruction) -> int:
    """Bytes that one instruction reads from main memory and writes to it."""
    if x.op in _FREE or x.op.endswith(("-done", "-update")) or _IDLE.search(x.attributes):
        return 0
    total = _written(module, computation, x)
    for source in (computation.instructions[name] for name in dict.fromkeys(x.operands)):
        if there := _resident(source.type):
            whole = _elements(source.type)
            total += there * min(whole, _read(module, computation, source, x, False)) // whole
    return total


def _written(module: HloModule, computation: Computation, x: Instruction) -> int:
    """Bytes that an instruction writes, or that a fusion writes for the instruction it ends in."""
    if x.op == "tuple":
        return sum(_written(module, computation, computation.instructions[name]) for name in x.operands)
    last = x
    while last.op in ("fusion", "bitcast"):
        computation = module.fused(last) if last.op == "fusion" else computation
        last = computation.root if last.op == "fusion" else computation.instructions[last.operands[0]]
    if last.op == "tuple":
        return _written(module, computation, last)
    if last.op in _UPDATES:
        update = computation.instructions[last.operands[1 if last.op == "dynamic-update-slice" else -1]]
        return _resident(x.type) * _elements(update.type) // _elements(last.type)
    # Nothing is written: a fusion returns its own argument, or an array that a collective fills at the same time.
    handed_on = last.op == "parameter" and x.op in ("parameter", "fusion")
    return 0 if handed_on or _waits(last) else _resident(x.type)


def _read(module: HloModule, computation: Computation, source: Instruction, user: Instruction, fused: bool) -> int:
    """Elements of `source` that an instruction needs."""
    total = 0
    for place in [i for i, name in enumerate(user.operands) if name == source.name]:
        if user.op in _SLICES and place == 0:
            total += _elements(user.type)
        elif user.op == "fusion":
            total += _used(module, module.fused(user), module.fused(user).parameter(place))
        elif fused and user.op in _ELEMENTWISE and user is not computation.root:
            total += _used(module, computation, user)
        elif not (
            (user.op in _UPDATES and place == 0) or (user.op == "tuple" and source.op == "parameter") or _waits(user)
        ):
            total += _elements(source.type)
    return total


def _used(module: HloModule, computation: Computation, source: Instruction) -> int:
    users = [x for x in computation.instructions.values() if source.name in x.operands]
    return min(_elements(source.type), sum(_read(module, computation, source, x, True) for x in users))


def _waits(x: Instruction) -> bool:
    """Whether an instruction only lets a collective go on that another one started."""
    return _step(x) or '"AsyncCollectiveDone"' in x.attributes
