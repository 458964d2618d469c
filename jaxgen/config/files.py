"""Config files: found by path, called for their experiment, changed by the command line."""

import ast
import difflib
import importlib.util
import pathlib
import sys
import traceback

from jaxgen.config import project
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment


def load(path: str | pathlib.Path) -> Experiment:
    """Return the experiment that a config file's `config()` makes.

    Raises UserError if the file is not there, cannot be run, or makes something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, [file.stem for file in find()], n=3, cutoff=0.5)
        paths = [str(file) for file in find() if file.stem in near]
        hint = f"perhaps you meant {' or '.join(paths)}" if paths else "`uv run jaxgen list` shows what there is"
        raise UserError(f"there is no config {path}; {hint}")
    project.make_importable()
    # Named as it would be imported from here, so that classes which a config defines can be found again.
    name = project.module_name(path)
    if name.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{path} has the name of a module of Python's own, {name}; give it another")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, "config", None)):
            raise UserError(f"{path} has no function config() that returns an Experiment")
        experiment = module.config()
    except UserError:
        raise
    except Exception as error:  # whatever a config may raise is its author's to read, in two lines
        frame = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.absolute())]
        line = frame[-1].lineno if frame else getattr(error, "lineno", "?")
        what = error.msg if isinstance(error, SyntaxError) else error
        raise UserError(f"{path}, line {line}: {type(error).__name__}: {what}") from error
    if not isinstance(experiment, Experiment):
        raise UserError(f"config() in {path} returned {type(experiment).__name__}; it must return an Experiment")
    return experiment


def find() -> list[pathlib.Path]:
    """Return the config files of the folder `configs`, here or in the checkout that this package is in."""
    folder = pathlib.Path("configs")
    if not folder.is_dir():
        folder = pathlib.Path(__file__).parents[2] / "configs"
    return sorted(path for path in folder.glob("*/*.py") if not path.stem.startswith("_"))


def summary(path: pathlib.Path) -> tuple[str, str]:
    """Return (first line, result) of a config's docstring; the result is its paragraph that begins "Result:"."""
    paragraphs = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")
    result = next((" ".join(p.split())[len("Result: ") :] for p in paragraphs if p.startswith("Result: ")), "no result")
    return paragraphs[0].replace("\n", " "), result
