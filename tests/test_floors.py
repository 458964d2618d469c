"""The house: imports point down, some rooms never meet, and an objective is what its Protocols name."""

import ast
import inspect
import pathlib
from collections.abc import Iterable

import pytest
from processes import ROOT

from jaxgen import loop, objective

# What reads a run folder, or a config's docstring, without its experiment.
STORED = (
    "config.annotations", "config.moved", "config.project", "config.codec", "config.catalogue", "runs.files",
)  # fmt: skip
# Rooms, or single files of a room, from the bottom up. A file imports from its own floor and from those below.
FLOORS = [
    ("typing", "errors", "tree", "noise", "progress"),
    ("state", "nn", "pictures", "data", "metrics.accumulators", "metrics.fidelity", "metrics.reconstruction", *STORED),
    ("optim", "parallel", "diffusion", "supervised", "restoration", "runs.lock"),
    ("learner", "models", "report"),
    ("adversarial", "objective", "runs.logs", "runs.divergence", "runs.watchdog", "runs.wandb", "runs.report"),
    ("weights", "features", "objectives"),
    ("experiment", "metrics"),
    ("program", "config"),
    ("sampling", "editing", "restoring"),
    ("evaluation", "runs", "weights.trained"),
    ("loop", "plan"),
    ("commands",),
    ("cli", "__main__"),
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted((ROOT / "jaxgen").rglob("*.py"))
NODES = {path: list(ast.walk(ast.parse(path.read_text()))) for path in FILES}

THEORY = ("diffusion", "adversarial", "supervised", "restoration")
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
    (("report",), ("experiment", "objectives", "program", "commands"), "a report reads files, and rebuilds nothing"),
]


def name_of(path: pathlib.Path) -> str:
    """A file's module below the package: "data.batches"."""
    return ".".join(path.relative_to(ROOT / "jaxgen").with_suffix("").parts)


MODULES = {name_of(path) for path in FILES}


def imported(path: pathlib.Path) -> set[str]:
    """Modules of jaxgen that a file imports, by their name below the package: "data.batches"."""
    found = set()
    for node in NODES[path]:
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


IMPORTS = {name_of(path): imported(path) for path in FILES if path.name != "__init__.py"}


def test_imports_point_down():
    up = [f"{own} imports {other}" for own, others in IMPORTS.items() for other in others if floor(other) > floor(own)]
    assert up == []
    assert not [path for path in FILES if path.name == "__init__.py" and imported(path)]


@pytest.mark.parametrize(("who", "whom", "why"), NEVER, ids=[why for _, _, why in NEVER])
def test_some_rooms_never_meet(who, whom, why):
    seen = [(own, other) for own, others in IMPORTS.items() if inside(own, who) for other in others]
    assert [f"{own} imports {other}" for own, other in seen if inside(other, whom)] == [], why
    assert seen  # the rooms are there


def test_a_model_never_imports_another_models_file():
    models = [(own, others) for own, others in IMPORTS.items() if inside(own, ("models",))]
    assert [own for own, others in models if any(inside(other, ("models",)) for other in others)] == []


def test_data_is_numpy_only():
    for path in FILES:
        if inside(name_of(path), ("data",)):
            for node in NODES[path]:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                assert not [name for name in names if name.split(".")[0] in ("jax", "flax", "optax")], path


def test_jit_stays_where_it_belongs():
    uses = {name_of(path) for path in FILES for node in NODES[path] if is_jit(node)}
    assert uses == {"program", "runs.checkpoints", "parallel.compiler"}


def is_jit(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr == "jit"
        and isinstance(node.value, ast.Name)
        and node.value.id == "jax"
    )


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


def asked(nodes: Iterable[ast.AST], *, probing: bool = False) -> list[str]:
    """What code asks an objective for, beyond what its Protocols name."""
    wrong = []
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            if node.func.id in ("hasattr", "getattr", "vars") and is_objective(node.args[0]) and not probing:
                wrong.append(ast.unparse(node))
            if node.func.id == "isinstance" and is_objective(node.args[0]):
                kinds = {protocol.__name__ for protocol in PROTOCOLS}
                wrong += [] if ast.unparse(node.args[1]) in kinds else [ast.unparse(node)]
        if isinstance(node, ast.Attribute) and is_objective(node.value) and node.attr not in NAMED:
            wrong.append(ast.unparse(node))
    return wrong


def test_nobody_asks_an_objective_for_anything_that_its_protocols_do_not_name():
    for path in FILES:
        if not inside(name_of(path), ("objectives",)):
            # The experiment alone asks what an objective lacks, to say so.
            assert asked(NODES[path], probing=path.name == "experiment.py") == [], path


def test_the_test_above_sees_what_it_forbids():
    bad = "hasattr(run.experiment.objective, 'net'); self.objective.inference; isinstance(objective, Diffusion)"
    assert len(asked(ast.walk(ast.parse(bad)))) == 3
    good = "objective.learners; isinstance(objective, Generative) and objective.generate(s, n, k, c)"
    assert asked(ast.walk(ast.parse(good))) == []


# --- sizes ------------------------------------------------------------------------------------------------------------


def functions(path: pathlib.Path):
    for node in NODES[path]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.name}:{node.name}", node.end_lineno - node.lineno + 1


def test_the_loop_fits_on_a_slide():
    assert len(inspect.getsource(loop.train).splitlines()) <= 60


def test_a_file_fits_in_one_sitting_and_a_function_on_a_screen():
    lines = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert lines[len(lines) // 2] <= 150
    assert lines[-1] <= 350
    assert [(name, size) for path in FILES for name, size in functions(path) if size > 80] == []
