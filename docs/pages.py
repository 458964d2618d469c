"""The pages that are made from the code, so that they cannot differ from it: API, commands, configs, notebooks."""

import ast
import contextlib
import io
import os
import pathlib
import re
import shutil
import tokenize
from collections.abc import Iterator
from unittest import mock

from jaxgen import cli
from jaxgen.config import catalogue

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
PACKAGE = ROOT / "jaxgen"
WIDTH = 84  # columns of what the commands say of themselves

# A line of CONTRIBUTING.md's tree: files at the top of the package, or folders, and what they are.
FILES = re.compile(r"  ((?:\w+ )+) +(\S.*)")
FOLDERS = re.compile(r"  ((?:\w+/ +)+)(.+?)  +(\S.*)")


def write(docs: pathlib.Path) -> None:
    """Write all made pages below `reference`, and copy the notebooks; what is up to date stays untouched."""
    pages = {**api(), "commands": commands(), "configs": configs()}
    folder = docs / "reference"
    for name, text in pages.items():
        _put(folder / f"{name}.md", text.encode())
    _prune(folder, {f"{name}.md" for name in pages})
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in notebooks:
        _put(docs / "notebooks" / path.name, path.read_bytes())
    _put(docs / "notebooks" / "index.md", notebook_index([path.stem for path in notebooks]).encode())
    _prune(docs / "notebooks", {"index.md", *(path.name for path in notebooks)})


def api() -> dict[str, str]:
    """Return a page for the files at the top of the package, one for each room, and one that lists them in order."""
    rooms = {name: (question, files) for name, question, files in tree()}
    pages = {"jaxgen": _api_page("jaxgen", "The idea, and the words it is told in.", "jaxgen", rooms[""][1])}
    for room, (question, files) in rooms.items():
        if room:
            pages[room] = _api_page(room, question, f"jaxgen.{room}", files)
    names = "\n".join(pages)
    lead = "One page a room, in the order of the house; every file is there. "
    lead += "Shapes are jaxtyping's: `f32[b h w c]` is a batch of images, `*s` any further axes."
    return {f"api/{name}": text for name, text in pages.items()} | {
        "api/index": f"# The API\n\n{lead}\n\n```{{toctree}}\n:maxdepth: 2\n\n{names}\n```\n"
    }


def tree() -> Iterator[tuple[str, str, list[str]]]:
    """Yield (room, its question, its files) in the order of CONTRIBUTING.md; "" is the top of the package.

    Rooms and files that are not named there yet come last.
    """
    block = (ROOT / "CONTRIBUTING.md").read_text().split("```")[1]
    top = [name for line in block.splitlines() if (found := FILES.match(line)) for name in found[1].split()]
    yield "", "", _in_order(PACKAGE, top)
    rooms = [path.name for path in sorted(PACKAGE.iterdir()) if (path / "__init__.py").is_file()]
    for line in block.splitlines():
        if found := FOLDERS.match(line):
            for room in found[1].replace("/", " ").split():
                if room in rooms:
                    rooms.remove(room)
                    yield room, found[2].strip(), _in_order(PACKAGE / room, re.split(r"[\s,]+", found[3]))
    for room in rooms:
        yield room, "", _in_order(PACKAGE / room, [])


def modules() -> list[str]:
    """Return the names of all modules that the API's pages show, in their order."""
    return [".".join(filter(None, ("jaxgen", room, name))) for room, _, files in tree() for name in files]


def comments(module: str) -> dict[tuple[str, str], str]:
    """Return the comments behind the fields of a module's classes, and behind its type aliases, by (class, name)."""
    text = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py").read_text()
    behind = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and token.line.strip() != token.string and "ignore[" not in token.string
    }
    body = ast.parse(text).body
    places = [("", node) for node in body]
    places += [(owner.name, node) for owner in body if isinstance(owner, ast.ClassDef) for node in owner.body]
    found = {}
    for owner, node in places:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.end_lineno in behind:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id[0] != "_" and (owner or not target.id.isupper()):
                found[owner, target.id] = behind[node.end_lineno]
    return found


def commands() -> str:
    """Return what each command says of itself when it is asked for `--help`."""
    lines = ["# Commands", "", "What `jaxgen COMMAND --help` prints. `train.py` is `jaxgen train`.", ""]
    for name, (_, what) in cli.COMMANDS.items():
        lines += [f"## jaxgen {name}", "", f"{what[0].upper()}{what[1:]}.", "", "```text", _help(name), "```", ""]
    return "\n".join(lines)


def configs() -> str:
    """Return the docstring of each config, in groups by task."""
    lines = ["# Configs", "", "What each config says of itself; `jaxgen list` prints the same in short.", ""]
    task = ""
    for path in sorted((ROOT / "configs").rglob("*.py")):
        name = catalogue.name_of(path)
        if name.partition("/")[0] != task:
            task = name.partition("/")[0]
            lines += [f"## {task.upper() if task == 'gan' else task.capitalize()}", ""]
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines += [f"### {name}", "", re.sub(r"([<*_|])", r"\\\1", text), ""]
    return "\n".join(lines)


def notebook_index(names: list[str]) -> str:
    """Return the page that lists the notebooks."""
    lead = "Each runs from a clean kernel in a few minutes on two CPU cores; what is shown here was computed by it."
    listed = "\n".join(["```{toctree}", ":maxdepth: 1", "", *names, "```"]) if names else "There are none yet."
    return f"# Notebooks\n\n{lead}\n\n{listed}\n"


def _api_page(title: str, question: str, package: str, files: list[str]) -> str:
    said = question[0].upper() + question[1:] + ("" if question[-1] in ".?" else ".") if question else ""
    lines = [f"# {title}", "", f"*{said}*" if said else "", ""]
    for name in files:
        lines += [f"## {name}", "", "```{eval-rst}", f".. automodule:: {package}.{name}", "```", ""]
    return "\n".join(lines)


def _in_order(folder: pathlib.Path, named: list[str]) -> list[str]:
    there = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    first = [name for name in dict.fromkeys(named) if name in there]
    return [*first, *sorted(there - set(first))]


def _help(command: str) -> str:
    out = io.StringIO()
    width = mock.patch.dict(os.environ, COLUMNS=str(WIDTH))  # whatever terminal this is
    with width, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([command, "--help"])
    return out.getvalue().strip()


def _put(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)


def _prune(folder: pathlib.Path, wanted: set[str]) -> None:
    """Remove pages of an earlier build that are made no more."""
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
        elif path.is_dir() and path.name == ".ipynb_checkpoints":
            shutil.rmtree(path)
