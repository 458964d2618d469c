"""The text of a compiled XLA program, as `compiled.as_text()` returns it: its instructions and how often each runs.

Written for three compilers' text, the CPU's, the GPU's and the TPU's. What the instructions move is counted in
`collectives.py`.
"""

import dataclasses
import math
import re
from collections.abc import Callable

_LINE = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_KNOWN = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_SAME = ("bitcast", "copy", "copy-done", "convert", "reshape", "optimization-barrier", "opt-barrier")
_MIRRORED = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE", "NE": "NE"}

# A number in a loop: (i, c) is c more than element i of the loop's state, (None, c) is c.
type _Linear = tuple[int | None, int]


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line. `op` is without the "-start" of an asynchronous operation, and `type` is then that of its result."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]
    """Names of instructions; of a constant its value, of a parameter its number."""
    attributes: str

    def called(self, key: str) -> str:
        """Name of the computation given by `key=%name`."""
        match = re.search(rf"\b{key}=%?([\w.\-]+)", self.attributes)
        if not match:
            raise ValueError(f"{self.op} {self.name} names no computation by {key}=")
        return match[1]


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in the order of their execution."""

    name: str
    instructions: dict[str, Instruction]
    root: Instruction

    def parameter(self, number: int) -> Instruction:
        """The instruction that stands for an argument."""
        return next(x for x in self.instructions.values() if x.op == "parameter" and x.operands == (str(number),))


@dataclasses.dataclass(frozen=True)
class HloModule:
    """A program: computations by name; the entry is run once."""

    computations: dict[str, Computation]
    entry: Computation

    def fused(self, fusion: Instruction) -> Computation:
        """What a fusion computes."""
        return self.computations[fusion.called("calls")]


def read(text: str) -> HloModule:
    """Read a program's text; raises ValueError if it has no entry."""
    computations, entry = {}, None
    name, instructions, root = "", {}, None
    for line in text.splitlines():
        if line[:1] == "}" and root:
            computations[name] = Computation(name, instructions, root)
            instructions, root = {}, None
        elif match := _LINE.match(line):
            instruction = _instruction(match[2], match[3])
            instructions[instruction.name] = instruction
            root = instruction if match[1] or not root else root
        elif match := _HEAD.match(line):
            name = match[2]
            entry = name if match[1] else entry
    if entry not in computations:
        raise ValueError("the text is not a compiled program: it has no ENTRY computation")
    return HloModule(computations, computations[entry])


def _instruction(name: str, text: str) -> Instruction:
    kind, text = _cut(text, _close(text, 0) if text[0] == "(" else text.index(" "))
    op, text = _cut(text, text.index("("))
    operands, attributes = _cut(text, _close(text, 0))
    op = op.strip()
    if op.endswith("-start") and op != "async-start":
        op = op.removesuffix("-start")
        if kind[0] == "(" and op != "all-reduce":
            # (operand, result, ...), but (result, operand, ...) of a copy
            kind = _split(kind[1:-1])[0 if op == "copy" else 1]
    names = tuple(x.split(" ")[-1].lstrip("%") for x in _split(operands[1:-1]))
    return Instruction(name, kind, op, names, attributes)


def _cut(text: str, place: int) -> tuple[str, str]:
    return text[:place], text[place:]


def _close(text: str, start: int) -> int:
    """Place after the parenthesis that closes the one at `start`."""
    depth = 0
    for match in re.finditer(r"[()]", text[start:]):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return start + match.end()
    raise ValueError(f"a parenthesis is not closed in {text[:80]}")


def _split(text: str) -> list[str]:
    """Parts between the commas outside all brackets; the comments that count elements are dropped."""
    parts, depth = [""], 0
    for piece in re.findall(r"/\*.*?\*/|[^,()\[\]{}/]+|.", text):
        depth += (piece in "([{") - (piece in ")]}")
        if piece == "," and depth == 0:
            parts.append("")
        elif not piece.startswith("/*"):
            parts[-1] += piece
    return [x.strip() for x in parts if x.strip()]


def arrays(kind: str) -> list[tuple[int, int, int]]:
    """Bits of an element, number of elements and memory space (0 is main memory) of each array of a type."""
    result = []
    for dtype, shape, layout in _ARRAY.findall(kind):
        bits = 8 if dtype == "pred" else int((re.search(r"\d+", dtype) or ["0"])[0])
        space = re.search(r"S\((\d+)\)", layout)
        count = math.prod(int(x.lstrip("<=")) for x in shape.split(",") if x)
        result.append((bits, count, int(space[1]) if space else 0))
    return result


def visits(
    module: HloModule, weigh: Callable[[Computation], float], computation: Computation | None = None, times: int = 1
) -> list[tuple[Computation, int]]:
    """Return every computation that is run on its own, not fused into an instruction, and how often it runs.

    Of a conditional's branches the one with the largest sum of `weigh` counts. A loop of unknown length runs once.
    """
    computation = computation or module.entry
    runs = [(computation, times)]

    def into(name: str, trips: int = 1) -> list[tuple[Computation, int]]:
        return visits(module, weigh, module.computations[name], times * trips)

    for x in computation.instructions.values():
        if x.op == "while":
            trips = _trips(module, computation, x)
            # A loop that ends after n trips has evaluated its condition n + 1 times.
            runs += into(x.called("condition"), 1 if trips is None else trips + 1)
            runs += into(x.called("body"), 1 if trips is None else trips)
        elif x.op == "conditional":
            listed = re.search(r"branch_computations=\{(.*?)\}", x.attributes)
            names = _split(listed[1]) if listed else [x.called("true_computation"), x.called("false_computation")]
            branches = [into(name.lstrip("%")) for name in names]
            runs += max(branches, key=lambda branch: sum(weigh(part) * often for part, often in branch))
        elif x.op in ("call", "async-start"):
            runs += into(x.called("to_apply" if x.op == "call" else "calls"))
    return runs


def unknown_loops(text: str) -> int:
    """Number of loops that are counted once because nothing in the text says how often they run."""
    module = read(text)
    loops = [(c, x) for c in module.computations.values() for x in c.instructions.values() if x.op == "while"]
    return sum(_trips(module, computation, loop) is None for computation, loop in loops)


def _trips(module: HloModule, computation: Computation, loop: Instruction) -> int | None:
    """Return how often a loop's body runs: as the compiler notes it, or by the counter that its condition compares.

    A counter that starts at an unknown number and goes up is taken to start at 0.
    """
    if known := _KNOWN.search(loop.attributes):
        return int(known[1])
    condition, body = (module.computations[loop.called(key)] for key in ("condition", "body"))
    compared = _comparison(module, condition, condition.root, None)
    if not compared:
        return None

    def first(side: _Linear) -> int | None:
        value = (None, 0) if side[0] is None else _linear(module, computation, loop.operands[0], None, side[0])
        return None if value is None or value[0] is not None else value[1] + side[1]

    def step(side: _Linear) -> int | None:
        value = (None, 0) if side[0] is None else _linear(module, body, body.root.name, None, side[0])
        return value[1] if value and value[0] == side[0] else None

    direction, counter, bound = compared
    if step(counter) == 0:
        direction, counter, bound = _MIRRORED[direction], bound, counter
    by, start, end = step(counter), first(counter), first(bound)
    if start is None and by and by > 0:
        start = counter[1]
    if not by or step(bound) != 0 or start is None or end is None:
        return None
    if direction != "NE" and (direction in ("LT", "LE")) != (by > 0):
        return None
    return len(range(start, end + {"LE": 1, "GE": -1}.get(direction, 0), by))


def _comparison(
    module: HloModule, computation: Computation, x: Instruction, arguments: list[_Linear | None] | None
) -> tuple[str, _Linear, _Linear] | None:
    """Return direction, left and right of the comparison that gives an instruction's value; None if none does."""
    if x.op == "compare":
        direction = re.search(r"direction=(\w+)", x.attributes)
        left, right = (_linear(module, computation, name, arguments) for name in x.operands)
        return (direction[1], left, right) if direction and direction[1] in _MIRRORED and left and right else None
    if x.op in ("fusion", "call"):
        inside = module.computations[x.called("calls" if x.op == "fusion" else "to_apply")]
        inner = [_linear(module, computation, name, arguments) for name in x.operands]
        return _comparison(module, inside, inside.root, inner)
    if x.op in _SAME:
        return _comparison(module, computation, computation.instructions[x.operands[0]], arguments)
    return None


def _linear(
    module: HloModule,
    computation: Computation,
    name: str,
    arguments: list[_Linear | None] | None,
    element: int | None = None,
) -> _Linear | None:
    """Return a value, or an element of a tuple, as a number in a loop; None if it is not one.

    `arguments` are those of a fusion; without them the computation's parameter is the loop's state.
    """
    x = computation.instructions[name]
    again = lambda name, element=None: _linear(module, computation, name, arguments, element)  # noqa: E731
    if x.op == "parameter":
        if arguments is None:
            return element or 0, 0
        return arguments[int(x.operands[0])] if element is None else None
    if x.op == "constant":
        return (None, int(x.operands[0])) if x.operands and re.fullmatch(r"-?\d+", x.operands[0]) else None
    if x.op == "get-tuple-element":
        index = re.search(r"index=(\d+)", x.attributes)
        return again(x.operands[0], int(index[1])) if index else None
    if x.op == "tuple":
        return again(x.operands[element or 0])
    if x.op in _SAME:
        return again(x.operands[0], element)
    if x.op in ("fusion", "call"):
        inside = module.computations[x.called("calls" if x.op == "fusion" else "to_apply")]
        return _linear(module, inside, inside.root.name, [again(name) for name in x.operands], element)
    if x.op in ("add", "subtract"):
        left, right = map(again, x.operands)
        sign = 1 if x.op == "add" else -1
        if left and right and (right[0] is None or (left[0] is None and sign == 1)):
            return left[0] if right[0] is None else right[0], left[1] + sign * right[1]
    return None
