"""Imports point down only."""

import ast
import pathlib

import pytest
from processes import ROOT

FLOORS = [
    ("typing", "tree", "pixels", "palette"),
    ("state", "average", "optim", "losses", "metrics", "latent", "objective", "parallel", "fidelity"),
    ("nn",),
    ("models", "inference", "diffusion", "adversarial"),
    ("objectives", "data", "features", "measures"),
    ("checkpoint", "log", "pictures", "interrupt"),
    (
        "loop",
        "program",
        "restored",
        "evaluate",
        "predict",
        "sample",
        "experiment",
        "expression",
        "config",
        "cli",
        "doctor",
        "run",
        "plan",
        "scaling",
        "stand_in",
        "__main__",
    ),
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
FILES = sorted((ROOT / "jaxgen").rglob("*.py"))


def imported(path: pathlib.Path) -> set[str]:
    """Modules of jaxgen that a file imports, by their name below the package: "data.batches"."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "jaxgen":
            below = node.module.removeprefix("jaxgen").lstrip(".")
            found |= {f"{below}.{alias.name}".lstrip(".") for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("jaxgen.") for a in node.names if a.name.startswith("jaxgen.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    own = path.relative_to(ROOT / "jaxgen").with_suffix("").parts[0]
    if own == "__init__":
        assert not imported(path)
        return
    for name in imported(path):
        other = name.split(".")[0]
        assert FLOOR[other] <= FLOOR[own], f"{own} (floor {FLOOR[own]}) imports {name} (floor {FLOOR[other]})"
        theory = ("diffusion", "adversarial")
        if own in (*theory, "models") and own != other:
            assert other not in (*theory, "models"), "samplers and games know no nets, and nets neither of them"
        if own in ("data", "objectives"):
            assert other not in ("models", *({"objectives"} if own == "data" else ())), f"{own} imports {name}"
        if other == "objectives":
            assert own in ("objectives", "predict", "stand_in"), "only prediction tells objectives apart"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_jit_stays_where_it_belongs(path):
    uses = "jax.jit" in path.read_text()
    assert not uses or path.stem in ("program", "loop", "evaluate", "predict", "sample", "checkpoint")


def test_a_file_fits_in_one_sitting():
    lines = sorted(len(path.read_text().splitlines()) for path in FILES)
    assert lines[len(lines) // 2] <= 180
    assert lines[-1] <= 350
