"""What one execution of a compiled program moves: over the links between devices, and out of main memory and back."""

import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

from jaxgen.plan import hlo
from jaxgen.plan.hlo import Computation, Instruction, Program

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Names, tuples of names, and instructions whose work is done by a computation that is counted itself.
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
    """Bytes on one device: of an all-gather's result, of what the other kinds are given."""
    times: int
    """How often one execution of the program does it."""
    op: str
    """Where it comes from: the operation's name in JAX, "" if the compiler kept none."""

    @property
    def traffic(self) -> float:
        """Bytes that each device sends, all times together.

        As by the algorithms that send least: the ring's for gather, scatter and reduce (Thakur, Rabenseifner and Gropp
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
            f"the program is for {partitions[1]} devices, the mesh has {devices}: name the mesh it was made for"
        )
    program = hlo.read(text)
    visits = hlo.visits(program, lambda computation: sum(x.traffic for x in _collectives(program, computation, mesh)))
    return [
        dataclasses.replace(x, times=times)
        for computation, times in visits
        if times
        for x in _collectives(program, computation, mesh)
    ]


def memory_traffic(text: str) -> int:
    """Count the bytes between a device's main memory and its compute units in one execution of a compiled program.

    Each instruction reads its operands once and writes its result; what is fused stays inside. Of an operand that is
    only sliced the slices count, of an array that is updated in place the update. The TPU's text says where an array
    lies: one whose layout has `S(1)`, the vector memory, or another `S(n)` costs nothing. Padding is not counted.
    """
    program = hlo.read(text)
    moved = lambda computation: sum(_moved(program, computation, x) for x in computation.instructions.values())  # noqa: E731
    return sum(times * moved(computation) for computation, times in hlo.visits(program, moved))


def _collectives(program: Program, computation: Computation, mesh: Mapping[str, int]) -> list[Collective]:
    found = []
    for outer, inside, x in _with_fused(program, computation):
        if x.op not in _KINDS or (_step(x) and _STARTS not in inside.root.attributes):
            continue
        axes, group = _participants(x.attributes, mesh)
        if axes:
            users = [user.op for user in inside.instructions.values() if x.name in user.operands]
            # The TPU writes a reduce-scatter as the fusion of an all-reduce and of the slice that is kept.
            scatters = outer is not x and x.op == "all-reduce" and set(users) == {"dynamic-slice"}
            payload = sum(_size(inside.instructions[name].type) for name in x.operands)
            found.append(
                Collective(
                    kind="reduce-scatter" if scatters else x.op,
                    axes=axes,
                    group=group,
                    payload=payload * group if x.op == "all-gather" else payload,
                    times=1,
                    op=_origin(x) or _origin(outer),
                )
            )
    return found


def _with_fused(program: Program, computation: Computation) -> Iterator[tuple[Instruction, Computation, Instruction]]:
    """Every instruction, after the computation that it stands in and the fusion, if any, that it is a part of."""
    for x in computation.instructions.values():
        yield x, computation, x
        if x.op == "fusion":
            yield from ((x, inside, part) for _, inside, part in _with_fused(program, program.fused(x)))


def _origin(x: Instruction) -> str:
    name = re.search(r'op_name="((?:[^"\\]|\\.)*)"', x.attributes)
    return re.sub(r"\\(.)", r"\1", name[1]) if name else ""


def _step(x: Instruction) -> bool:
    """Whether an instruction moves a part of a collective that the TPU runs beside other work.

    The whole collective stands in each of the fusions that share it out; the first of them starts it, others may lie in
    loops of their own. The channel does not tell: a function that is called twice has two collectives on one channel.
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


def _moved(program: Program, computation: Computation, x: Instruction) -> int:
    """Bytes that one instruction reads from main memory and writes to it."""
    if x.op in _FREE or x.op.endswith(("-done", "-update")) or _IDLE.search(x.attributes):
        return 0
    total = _written(program, computation, x)
    for source in (computation.instructions[name] for name in dict.fromkeys(x.operands)):
        if there := _resident(source.type):
            whole = _elements(source.type)
            total += there * min(whole, _read(program, computation, source, x, False)) // whole
    return total


def _written(program: Program, computation: Computation, x: Instruction) -> int:
    """Bytes that an instruction writes, or that a fusion writes for the instruction it ends in."""
    if x.op == "tuple":
        return sum(_written(program, computation, computation.instructions[name]) for name in x.operands)
    made = x
    while made.op in ("fusion", "bitcast"):
        computation = program.fused(made) if made.op == "fusion" else computation
        made = computation.root if made.op == "fusion" else computation.instructions[made.operands[0]]
    if made.op == "tuple":
        return _written(program, computation, made)
    if made.op in _UPDATES:
        update = computation.instructions[made.operands[1 if made.op == "dynamic-update-slice" else -1]]
        return _resident(x.type) * _elements(update.type) // _elements(made.type)
    # A fusion hands on what it was given, and an array that a collective fills beside its work.
    given = made.op == "parameter" and x.op in ("parameter", "fusion")
    return 0 if given or _waits(made) else _resident(x.type)


def _read(program: Program, computation: Computation, source: Instruction, user: Instruction, fused: bool) -> int:
    """Elements of `source` that an instruction needs."""
    total = 0
    for place in [i for i, name in enumerate(user.operands) if name == source.name]:
        if user.op in _SLICES and place == 0:
            total += _elements(user.type)
        elif user.op == "fusion":
            total += _used(program, program.fused(user), program.fused(user).parameter(place))
        elif fused and user.op in _ELEMENTWISE and user is not computation.root:
            total += _used(program, computation, user)
        elif not (
            (user.op in _UPDATES and place == 0) or (user.op == "tuple" and source.op == "parameter") or _waits(user)
        ):
            total += _elements(source.type)
    return total


def _used(program: Program, computation: Computation, source: Instruction) -> int:
    users = [x for x in computation.instructions.values() if source.name in x.operands]
    return min(_elements(source.type), sum(_read(program, computation, source, x, True) for x in users))


def _waits(x: Instruction) -> bool:
    """Whether all that an instruction does is to let a collective go on that another one started."""
    return _step(x) or '"AsyncCollectiveDone"' in x.attributes
