"""What the compiled train step sends on eight devices: laws for each rule, and the very bytes as a golden table.

`PYTHONPATH=tests python tests/test_compiled_steps.py` writes the table anew: after a deliberate change of rules or of
steps, or with another version of XLA, when the laws below still hold.
"""

import collections
import dataclasses
import pathlib
from typing import Any

import jax
import pytest
from small import EXPERIMENTS

from jaxgen import program as programs
from jaxgen import tree
from jaxgen.models.dit import DIT
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Composed, Fsdp, Replicated, Rule
from jaxgen.plan.collectives import collectives
from jaxgen.program import Program

GOLDEN = pathlib.Path(__file__).parent / "golden" / "collectives.txt"
GENERIC = Composed((Fsdp(axis="tensor", smallest=1), Fsdp(smallest=1)))
LAYOUTS: dict[str, tuple[MeshShape, Rule]] = {
    "replicated": (MeshShape(), Replicated()),
    "fsdp": (MeshShape(replica=1, fsdp=-1), Fsdp(smallest=1)),
    "replica x fsdp": (MeshShape(replica=2, fsdp=-1), Fsdp(smallest=1)),
    "fsdp x tensor": (MeshShape(replica=1, fsdp=-1, tensor=2), GENERIC),
    "replica x context": (MeshShape(replica=-1, context=2), Replicated()),
}
# The transformer in every layout, and of the others what most people run.
ALL = [("diffusion", layout) for layout in LAYOUTS] + [
    (name, layout) for name in ("classification", "segmentation", "gan") for layout in ("replicated", "fsdp")
]
QUICK = {("diffusion", "fsdp"), ("classification", "replicated")}
BY_HAND = {("diffusion", "replicated"), ("segmentation", "replicated"), ("classification", "fsdp")}
SCALARS = 1024  # bytes of what a step reports, and of batch statistics


def assemble(name: str, layout: str) -> Program:
    shape, rule = LAYOUTS[layout]
    if (name, layout) == ("diffusion", "fsdp x tensor"):
        rule = Composed((DIT, Fsdp(smallest=1)))
    made = dataclasses.replace(EXPERIMENTS[name](), mesh=shape, rule=rule)
    return Program.of(made)


def sent(prog: Program) -> dict[tuple[str, str], tuple[int, int]]:
    """(kind, axes) -> (times, bytes of the arrays that are gathered, summed or moved)."""
    text = prog.step.lower(prog.shapes, dict(prog.spec)).compile().as_text()
    found: dict[tuple[str, str], tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
    for one in collectives(text, prog.mesh.shape):
        key = one.kind, " x ".join(one.axes)
        times, size = found[key]
        found[key] = times + one.times, size + one.times * one.payload
    return dict(found)


def lines(name: str, layout: str, found: dict[tuple[str, str], tuple[int, int]]) -> list[str]:
    return [
        f"{name:<15} {layout:<18} {kind:<19} {axes:<16} {times:>4} times {size:>9} bytes"
        for (kind, axes), (times, size) in sorted(found.items())
    ]


def parameters(prog: Program) -> int:
    """Bytes of all parameters, and so of all gradients."""
    return 4 * sum(tree.count(net.params) for net in prog.shapes.nets.values())


def total(found: dict[tuple[str, str], tuple[int, int]], kind: str) -> int:
    return sum(size for (k, _), (_, size) in found.items() if k == kind)


def check(layout: str, prog: Program, found: dict[tuple[str, str], tuple[int, int]]) -> None:
    """Data parallelism sums gradients; FSDP gathers each parameter for the way there and the way back, and no more."""
    own = parameters(prog)
    if layout == "replicated":
        assert own <= total(found, "all-reduce") <= own + SCALARS
        assert total(found, "all-gather") + total(found, "all-to-all") <= SCALARS
    if layout in ("fsdp", "replica x fsdp"):
        assert total(found, "all-gather") <= 2 * own
        summed = total(found, "all-reduce") + total(found, "reduce-scatter")
        assert 0.9 * own <= summed <= 1.3 * own + SCALARS
    assert total(found, "collective-permute") <= (SCALARS if "context" not in layout else own)


def case(name: str, layout: str) -> Any:
    mark = pytest.mark.by_hand if (name, layout) in BY_HAND else pytest.mark.slow
    return pytest.param(name, layout, marks=() if (name, layout) in QUICK else mark)


@pytest.mark.parametrize(("name", "layout"), [case(*each) for each in ALL if each[0] != "gan"])
def test_a_step_sends_what_its_rule_needs(name, layout):
    prog = assemble(name, layout)
    found = sent(prog)
    check(layout, prog, found)
    golden = [line for line in GOLDEN.read_text().splitlines() if line.startswith(f"{name:<15} {layout:<18} ")]
    assert lines(name, layout, found) == golden


# R1 and R2 differentiate the discriminator twice, so that its parameters are used, and gathered, more often.
@pytest.mark.parametrize(
    "layout", [pytest.param("replicated", marks=pytest.mark.by_hand), pytest.param("fsdp", marks=pytest.mark.slow)]
)
def test_a_game_sends_what_its_rule_needs(layout):
    found = sent(assemble("gan", layout))
    golden = [line for line in GOLDEN.read_text().splitlines() if line.startswith(f"{'gan':<15} {layout:<18} ")]
    assert lines("gan", layout, found) == golden


@pytest.mark.slow
def test_left_to_itself_the_partitioner_would_break_the_law(monkeypatch):
    monkeypatch.setattr(programs, "constrained", lambda mesh, function: function)
    prog = assemble("diffusion", "fsdp")
    with pytest.raises(AssertionError):
        check("fsdp", prog, sent(prog))


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    rows = [line for name, layout in ALL for line in lines(name, layout, sent(assemble(name, layout)))]
    GOLDEN.write_text("\n".join(rows) + "\n")
