"""The house: imports point down, some rooms never meet, and an objective is what its Protocols name."""

import ast
import inspect
import pathlib

import pytest
from processes import ROOT

from jaxgen import loop, objective

# Rooms, or single files of a room, from the bottom up. A file imports from its own floor and from those below.
FLOORS = [
    ("typing", "errors", "tree", "noise"),
    ("state", "nn", "pictures", "data", "metrics.accumulators", "metrics.fidelity"),
    ("optim", "parallel", "diffusion", "supervised"),
    ("learner", "models"),
    ("adversarial", "objective", "runs.logs", "runs.divergence", "runs.watchdog", "runs.wandb"),
    ("weights", "features", "objectives"),
    ("experiment", "metrics"),
    ("program", "config"),
    ("sampling",),
    ("evaluation", "runs", "weights.trained"),
    ("loop", "plan"),
    ("commands",),
    ("cli", "__main__"),
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted((ROOT / "jaxgen").rglob("*.py"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))

THEORY = ("diffusion", "adversarial", "supervised")
DEVICES = ("parallel.mesh", "parallel.processes", "parallel.rules", "parallel.activations", "plan.topologies")
# (who, never imports whom, because)
NEVER = [
    (THEORY, (*DEVICES, "models", "runs", "objectives"), "theory knows no devices, nets or runs"),
    (("objectives",), (*DEVICES, "models", "runs", "commands"), "an objective is pure: no devices, nets or runs"),
    (("commands", "plan", "loop"), ("objectives",), "whoever knows objectives knows none in particular"),
    (("models",), ("objectives", "data", *THEORY), "a net knows neither its loss nor its data"),
    (("data",), ("models", "objectives", "nn", "optim", "parallel", *THEORY), "data is numpy only"),
    (("diffusion",), ("adversarial",), "samplers know no games"),
    (("adversarial",), ("diffusion",), "games know no samplers"),
]


def name_of(path: pathlib.Path) -> str:
    """A file's module below the package: "data.batches"."""
    return ".".join(path.relative_to(ROOT / "jaxgen").with_suffix("").parts)


MODULES = {name_of(path) for path in FILES}


def imported(path: pathlib.Path) -> set[str]:
    """Modules of jaxgen that a file imports, by their name below the package: "data.batches"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxgen":
            below = node.module.removeprefix("jaxgen").lstrip(".")
            for alias in node.names:
                inner = f"{below}.{alias.name}".lstrip(".")
                found.add(inner if inner in MODULES else below)
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("jaxgen.") for a in node.names if a.name.startswith("jaxgen.")}
    return found


def floor(module: str) -> int:
    return FLOOR[module] if module in FLOOR else FLOOR[module.split(".")[0]]


def inside(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


@each_file
def test_imports_point_down(path):
    own = name_of(path)
    if path.name == "__init__.py":
        assert not imported(path)
        return
    for other in imported(path):
        assert floor(other) <= floor(own), f"{own} (floor {floor(own)}) imports {other} (floor {floor(other)})"


@each_file
@pytest.mark.parametrize(("who", "whom", "why"), NEVER, ids=[why for _, _, why in NEVER])
def test_some_rooms_never_meet(path, who, whom, why):
    own = name_of(path)
    if inside(own, who):
        assert [other for other in imported(path) if inside(other, whom)] == [], why


@each_file
def test_a_model_never_imports_another_models_file(path):
    own = name_of(path)
    if inside(own, ("models",)):
        assert not [other for other in imported(path) if inside(other, ("models",))], "what two nets share lies in nn"


@each_file
def test_data_is_numpy_only(path):
    if inside(name_of(path), ("data",)):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("jax", "flax", "optax")]


@each_file
def test_jit_stays_where_it_belongs(path):
    uses = [node for node in ast.walk(ast.parse(path.read_text())) if ast.unparse(node) == "jax.jit"]
    assert not uses or name_of(path) in ("program", "runs.checkpoints")


# --- an objective is what its Protocols name --------------------------------------------------------------------------

PROTOCOLS = [
    thing for _, thing in inspect.getmembers(objective, inspect.isclass) if getattr(thing, "_is_protocol", False)
]
NAMED = {name for protocol in PROTOCOLS for name in protocol.__protocol_attrs__}


def is_objective(node: ast.AST) -> bool:
    """Whether an expression is called `objective` in the code, as a name or as an attribute."""
    return (isinstance(node, ast.Name) and node.id == "objective") or (
        isinstance(node, ast.Attribute) and node.attr == "objective"
    )


@each_file
def test_nobody_asks_an_objective_for_anything_that_its_protocols_do_not_name(path):
    if inside(name_of(path), ("objectives",)):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{path.name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            if node.func.id in ("hasattr", "getattr", "vars") and where.split(":")[0] != "experiment.py":
                assert not is_objective(node.args[0]), f"{where} probes an objective"
            if node.func.id == "isinstance" and is_objective(node.args[0]):
                assert node.args[1].id in {protocol.__name__ for protocol in PROTOCOLS}, where
        if isinstance(node, ast.Attribute) and is_objective(node.value):
            assert node.attr in NAMED, f"{where} asks an objective for {node.attr}"


def test_the_test_above_sees_what_it_forbids():
    bad = ast.parse("hasattr(experiment.objective, 'net')\nx = self.objective.inference\n")
    asked = [node.attr for node in ast.walk(bad) if isinstance(node, ast.Attribute) and is_objective(node.value)]
    assert asked == ["inference"]
    assert "inference" not in NAMED
    assert {"learners", "microbatches", "batch_parts", "generate", "predict"} <= NAMED


# --- sizes ------------------------------------------------------------------------------------------------------------


def functions(path: pathlib.Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1


def test_the_loop_fits_on_a_slide():
    assert len(inspect.getsource(loop.train).splitlines()) <= 60


def test_a_file_fits_in_one_sitting_and_a_function_on_a_screen():
    lines = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert lines[len(lines) // 2] <= 150
    assert lines[-1] <= 350
    assert [(name, size) for path in FILES for name, size in functions(path) if size > 80] == []
