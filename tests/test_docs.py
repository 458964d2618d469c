"""The documentation says what is so: its commands exist, its Python runs, its links lead somewhere."""

import ast
import functools
import importlib
import pathlib
import re
import shlex
import sys

import pytest
from processes import ROOT, call

from jaxgen import cli
from jaxgen.commands import generator, output
from jaxgen.config import overrides
from jaxgen.errors import UserError

DOCS = ROOT / "docs"
GUIDES = sorted(DOCS.glob("*.md"))
TEXTS = [*GUIDES, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples" / "launch" / "README.md"]
MADE = ("reference/", "notebooks/")  # pages that conf.py makes
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)


def commands(text: str) -> list[str]:
    """The lines of a text's blocks that start jaxgen, its training or a benchmark, without what stands before."""
    found = []
    for language, block in FENCE.findall(text):
        if language in ("", "bash", "sh"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [match[1].removesuffix("&") for line in lines if (match := STARTED.match(line.strip()))]
    return found


BEFORE = r"(?:[A-Z_]+=\S+ )*(?:uv run (?:--extra \w+ )*)?(?:mpirun .*python )?"
STARTED = re.compile(rf"{BEFORE}((?:jaxgen|train\.py|benchmarks/\w+\.py|examples/\w+\.py)(?: .*)?)$")
FOUND: dict[str, list[str]] = {}  # command -> the files that it is in
for text in TEXTS:
    for one in commands(text.read_text()):
        FOUND.setdefault(one, []).append(text.name)


class Read(Exception):
    """The command line has been read without a fault."""


def read(monkeypatch, line: str) -> None:
    """Raise Read if a command could be started so: its parser, and the config's fields, know every word.

    Raises UserError otherwise, or lets a command that ran on say what happened.
    """

    def stopping(function):
        def call(*args, **kwargs):
            function(*args, **kwargs)
            raise Read

        return call

    monkeypatch.setattr(output.Parser, "parse_args", stopping(output.Parser.parse_args))
    monkeypatch.setattr(overrides, "override", stopping(overrides.override))
    monkeypatch.setattr(generator, "opened", stopping(lambda args: None))
    program, *words = shlex.split(line)
    command = "train" if program == "train.py" else words.pop(0)
    if command not in cli.COMMANDS:
        raise UserError(f"there is no command {command}")
    module = importlib.import_module(f"jaxgen.commands.{cli.COMMANDS[command][0]}")
    try:
        module.run(f"jaxgen {command}", words)
    except SystemExit as end:  # --help
        raise UserError(f"status {end.code}") if end.code else Read from None


def check_script(line: str) -> None:
    """Raise UserError unless the script is there, and names every option of the line in its source."""
    script, *words = shlex.split(line)
    if not (ROOT / script).is_file():
        raise UserError(f"there is no {script}")
    text = (ROOT / script).read_text()
    for word in words:
        if word.startswith("--") and f'"{word}"' not in text:
            raise UserError(f"{script} knows no {word}")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder with the configs and nothing else."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


@pytest.mark.parametrize(("line", "pages"), FOUND.items(), ids=FOUND)
def test_a_command_in_the_documentation_is_one(line, pages, folder, monkeypatch):
    if line.startswith(("benchmarks", "examples")):
        check_script(line)
        return
    with pytest.raises(Read):
        read(monkeypatch, line.replace(" CONFIG", " digits_cnn"))


def test_the_commands_are_found():
    assert len({page for pages in FOUND.values() for page in pages}) > 10
    assert {shlex.split(line)[1] for line in FOUND if line.startswith("jaxgen ")} > {"sample", "eval", "plan", "data"}
    assert commands("```\nA_B=1 uv run train.py x &\n```\n") == ["train.py x "]
    assert commands("```python\nuv run train.py x\n```\n") == []


@pytest.mark.parametrize(
    "line",
    [
        "jaxgen smaple runs/x --n 3",
        "jaxgen sample runs/x --nn 3",
        "jaxgen sample runs/x --n three",
        "train.py configs/diffusion/digits_emd.py",
        "train.py configs/diffusion/digits_edm.py --objective.net.module.no-such-field 64",
        "jaxgen plan diffusion/digits_edm --topologie v5e:4x4",
        "jaxgen data diffusion/digits_edm --train.source.no-such-field a",
    ],
)
def test_a_mistyped_command_is_found(line, folder, monkeypatch):
    with pytest.raises(UserError):
        read(monkeypatch, line)


@pytest.mark.parametrize("script", ["benchmarks/no_such.py", "benchmarks/quality.py RUN --stepz 3"])
def test_a_mistyped_script_is_found(script):
    with pytest.raises(UserError):
        check_script(script)


def blocks(path: pathlib.Path) -> str:
    return "\n".join(block for language, block in FENCE.findall(path.read_text()) if language == "python")


PYTHON = [path for path in GUIDES if blocks(path)]


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON, ids=lambda path: path.name)
def test_the_python_of_a_page_runs(page, folder, tmp_path):
    """As one script, in the order of the page, on two devices; its own asserts hold."""
    (tmp_path / "page.py").write_text(blocks(page))
    done = call("page.py", cache=tmp_path / "cache", cwd=tmp_path, PYTHONPATH=str(ROOT), JAX_NUM_CPU_DEVICES="2")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PYTHON, ids=lambda path: path.name)
def test_what_a_page_imports_is_there(page):
    for node in ast.walk(ast.parse(blocks(page))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == [], node.module


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: path.name)
def test_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        if re.match(r"https?:|mailto:", target) or (page.parent == DOCS and name.startswith(MADE)):
            continue
        there = page if not name else (page.parent / name).resolve()
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(), re.M)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in slugs, f"{page.name} links to {target}"


@functools.cache
def defined() -> set[str]:
    """Names of all classes and functions of jaxgen."""
    kinds = (ast.ClassDef, ast.FunctionDef)
    trees = [ast.parse(path.read_text()) for path in (ROOT / "jaxgen").rglob("*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)}


@pytest.mark.parametrize("page", GUIDES, ids=lambda path: path.name)
def test_values_that_a_page_names_exist(page):
    """`CamelCase`, alone or as a call, in running text and tables is a class of jaxgen."""
    text = FENCE.sub("", page.read_text())
    named = set(re.findall(r"`([A-Z][a-z]\w*)(?:\([^`]*\))?`", text))
    assert named - defined() == set()


# --- the pages that are made from the code ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pages():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module("pages")


def test_every_module_has_its_place_in_the_api(pages):
    made = pages.api()
    shown = re.findall(r"automodule:: (\S+)", "\n".join(made.values()))
    files = [path for path in (ROOT / "jaxgen").rglob("*.py") if path.stem not in ("__init__", "__main__")]
    assert sorted(shown) == sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    listed = made["api/index"]
    assert listed.index("\nobjectives\n") < listed.index("\nmodels\n") < listed.index("\ncommands\n")


def test_every_command_and_config_has_its_section(pages):
    text = pages.commands()
    for name in cli.COMMANDS:
        section = text.partition(f"## jaxgen {name}\n")[2].partition("\n## ")[0]
        assert f"usage: jaxgen {name}" in section
    assert "--schedule" in text
    for path in (ROOT / "configs").rglob("*.py"):
        assert f"### {path.parent.name}/{path.stem}\n" in pages.configs()


def test_comments_behind_fields_and_aliases_are_read(pages):
    assert pages.comments("jaxgen.state")["Net", "params"] == "trained weights, f32"
    assert pages.comments("jaxgen.typing")["", "Tree"] == "any pytree of arrays"


def test_pages_that_are_made_no_more_go(pages, tmp_path, monkeypatch):
    for name in ("api", "commands", "configs"):
        monkeypatch.setattr(pages, name, lambda name=name: {"api/index": "a"} if name == "api" else name)
    for stale in ("reference/api/old.md", "notebooks/old.ipynb"):
        (tmp_path / stale).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stale).touch()
    pages.write(tmp_path)
    assert {path.relative_to(tmp_path / "reference").as_posix() for path in tmp_path.glob("reference/**/*.md")} == {
        "api/index.md", "commands.md", "configs.md",
    }  # fmt: skip
    assert not (tmp_path / "notebooks" / "old.ipynb").exists()
    before = (tmp_path / "reference" / "commands.md").stat().st_mtime_ns
    pages.write(tmp_path)
    assert (tmp_path / "reference" / "commands.md").stat().st_mtime_ns == before  # an unchanged page is not built anew


def test_no_page_asks_a_network(pages):
    """Styles and scripts are the theme's; pictures lie beside the pages."""
    for page in GUIDES:
        assert not re.search(r"!\[[^]]*\]\(https?:|<(?:script|link|img)\b", page.read_text()), page.name
    assert "http" not in (DOCS / "_static" / "jaxgen.css").read_text()
