"""Config files: found by path, called for their experiment, changed by the command line."""

import ast
import contextlib
import difflib
import importlib.util
import io
import itertools
import pathlib
import sys
import traceback
from collections.abc import Sequence

import tyro

from jaxgen import experiment as experiments
from jaxgen.experiment import Experiment
from jaxgen.typing import UserError


def load(path: pathlib.Path) -> Experiment:
    """Return the experiment that a config file's `config()` makes.

    Raises UserError if the file is not there, cannot be run, or makes something else.
    """
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, [found.stem for found in find()], n=3, cutoff=0.5)
        paths = [str(found) for found in find() if found.stem in near]
        hint = f"perhaps you meant {' or '.join(paths)}" if paths else "`uv run jaxgen list` shows what there is"
        raise UserError(f"there is no config {path}; {hint}")
    # Named as it would be imported from here, so that classes which a config defines can be found again.
    name = ".".join(path.with_suffix("").parts[-3:])
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, "config", None)):
            raise UserError(f"{path} has no function config() that returns an Experiment")
        made = module.config()
    except UserError:
        raise
    except Exception as error:  # whatever a config may raise is its author's to read, in two lines
        frame = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = frame[-1].lineno if frame else getattr(error, "lineno", "?")
        what = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {what}") from error
    if not isinstance(made, Experiment):
        raise UserError(f"config() in {path} returned {type(made).__name__}; it must return an Experiment")
    return made


def override(experiment: Experiment, arguments: Sequence[str], prog: str) -> Experiment:
    """Change an experiment's fields by "--a.b.c VALUE" arguments; "--help" prints them all and exits.

    Raises UserError in one line, with the nearest name for a mistyped one.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(Experiment, default=experiment, args=list(arguments), prog=prog)
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_shorten(stderr.getvalue(), experiment)) from None


def _shorten(box: str, experiment: Experiment) -> str:
    """Make one line of tyro's boxed message, and put the nearest field's name to an unknown one."""
    # A title and the message, parted by rules that depend on the terminal; more follows, also after a rule.
    lines = [line.strip("│| ").strip("─-") for line in box.splitlines()[1:]]
    message = " ".join(itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines)))
    unknown = [word.strip(",") for word in message.split() if word.startswith("--")]
    if not message.startswith("Unrecognized"):
        return message or "the command line cannot be read"
    if not unknown:
        return f"{message}; fields are changed by --name VALUE"
    word = unknown[0].partition("=")[0]
    fields = ["--" + name.replace("_", "-") for name in experiments.flatten(experiments.encode(experiment))]
    fields = [name for name in fields if not any(other.startswith(f"{name}.") for other in fields)]

    def likeness(name: str) -> float:
        last = "--" + name.lstrip("-").rpartition(".")[2]
        return max(difflib.SequenceMatcher(None, word, text).ratio() for text in (name, last))

    near = [name for name in sorted(fields, key=likeness, reverse=True)[:2] if likeness(name) > 0.7]
    hint = f"perhaps you meant {' or '.join(near)}" if near else "--help lists the names"
    return f"unknown option {word}; {hint}"


def find() -> list[pathlib.Path]:
    """Return the config files of the folder `configs`, here or in the checkout that this package is in."""
    here = pathlib.Path("configs")
    if not here.is_dir():
        here = pathlib.Path(__file__).parent.parent / "configs"
    return sorted(path for path in here.glob("*/*.py") if not path.stem.startswith("_"))


def summary(path: pathlib.Path) -> tuple[str, str]:
    """Return (first line, promise) of a config's docstring; the promise is its paragraph that begins "Promise:"."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")
    promise = next((" ".join(p.split())[len("Promise: ") :] for p in lines if p.startswith("Promise: ")), "no promise")
    return lines[0].replace("\n", " "), promise
