"""The notebooks as they are committed: made of their sources, executed whole, and fit to be shown to anybody.

`uv run --extra docs notebooks/execute.py` makes them anew; that they execute is held by .ci/run.
"""

import json
import re

import pytest
from processes import ROOT

SOURCES = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
MOST = 1_500_000  # bytes
FIGURES = 6
ONE_MACHINES = re.compile(r"(?<![\w.:/])/(?:home|root|Users|tmp|var|usr|opt|mnt|work|private)/|\b0x[0-9a-f]{6,}\b")


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request):
    return request.param


def read(source) -> dict:
    return json.loads(source.with_suffix(".ipynb").read_text())


def code(notebook) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook) -> list[dict]:
    return [output for cell in code(notebook) for output in cell["outputs"]]


def texts(notebook) -> list[str]:
    """What a reader of the outputs sees, without the pictures."""
    found = []
    for output in outputs(notebook):
        shown = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
        found += ["".join(text) for text in (output.get("text", ""), *shown.values())]
    return found


def test_there_are_five():
    assert [path.stem[0] for path in SOURCES] == ["1", "2", "3", "4", "5"]


def test_it_is_made_of_its_source(source):
    """The cells' lines, blank ones left out, are the source's, in the same cells."""
    made = []
    for cell in read(source)["cells"]:
        made.append("# %%" if cell["cell_type"] == "code" else "# %% [markdown]")
        lines = "".join(cell["source"]).splitlines()
        made += lines if cell["cell_type"] == "code" else [f"# {line}".rstrip() for line in lines if line.strip()]
    written = [line for line in source.read_text().splitlines() if line.strip() not in ("", "#")]
    assert [line for line in made if line.strip()] == written


def test_it_was_executed_from_a_clean_kernel_without_errors_or_warnings(source):
    notebook = read(source)
    assert [cell["execution_count"] for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))
    assert not [output for output in outputs(notebook) if output["output_type"] == "error"]
    assert not ["".join(output["text"]) for output in outputs(notebook) if output.get("name") == "stderr"]


def test_it_shows_figures(source):
    kinds = [kind for output in outputs(read(source)) for kind in output.get("data", {})]
    assert sum(kind in ("image/png", "image/gif") for kind in kinds) >= FIGURES


def test_it_tells_nothing_of_the_machine_that_it_was_made_on(source):
    notebook = read(source)
    assert not [text for text in texts(notebook) if ONE_MACHINES.search(text)]
    assert notebook["metadata"].keys() == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert not [cell["metadata"] for cell in notebook["cells"] if cell["metadata"]]


def test_the_test_above_sees_what_it_forbids():
    for text in ("in /home/anna/x.png", "'/tmp/tmpab12/checkpoints'", "<Axes at 0x7f3c55d0a1>"):
        assert ONE_MACHINES.search(text)
    assert not ONE_MACHINES.search("https://arxiv.org/abs/1606.06211, nets/net/params/tmp/kernel, [0, 1]")


def test_it_is_small(source):
    assert source.with_suffix(".ipynb").stat().st_size <= MOST
