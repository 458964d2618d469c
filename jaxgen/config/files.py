"""Config files called for their experiment."""

import contextlib
import hashlib
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType

from jaxgen.config import project
from jaxgen.config.catalogue import locate
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment


def load(path: str | pathlib.Path, known: Sequence[pathlib.Path] = ()) -> Experiment:
    """Return the experiment that a config makes, which is given as a file or by its name in the list of configs.

    `known` are folders of the project that it is known to belong to. What a config prints goes to standard error.
    Raises UserError if the file is not there, cannot be run, or makes something else.
    """
    path = locate(path)
    with contextlib.redirect_stdout(sys.stderr):
        module = _run(path, folders(path, known))
        make = getattr(module, "config", None)
        if isinstance(make, Experiment):
            raise UserError(f"config in {path} is an Experiment; it must be a function that returns one")
        if not callable(make):
            raise UserError(f"{path} has no function config() that returns an Experiment")
        try:
            experiment = make()
        except (Exception, SystemExit) as error:
            raise _explained(path, error) from error
    if not isinstance(experiment, Experiment):
        what = "nothing: has it no return?" if experiment is None else type(experiment).__name__
        raise UserError(f"config() in {path} returned {what}; it must return an Experiment")
    return experiment


def folders(path: pathlib.Path, known: Sequence[pathlib.Path] = ()) -> tuple[pathlib.Path, ...]:
    """Return the folders that a config file's modules are imported from; see `project.folders_of`."""
    inside = [project.SHIPPED] if path.resolve().is_relative_to(project.SHIPPED / "configs") else []
    return project.folders_of(path, (*inside, *known))


def _run(path: pathlib.Path, roots: Sequence[pathlib.Path]) -> ModuleType:
    """Import a config file by the name that leads to it, so that classes which it defines can be found again."""
    project.make_importable(roots)
    # A name that leads elsewhere, or nowhere, is not taken from the module whose it is.
    name = (
        project.module_name(path, roots) or f"{project.UNNAMED}{hashlib.sha256(bytes(path.resolve())).hexdigest()[:8]}"
    )
    spec = importlib.util.spec_from_file_location(name, path.absolute())
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
        raise _explained(path, error) from error
    return module


def _explained(path: pathlib.Path, error: BaseException) -> UserError:
    """Say in two lines what a config raised: whatever it may be, it is its author's to read."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, SystemExit):
        return UserError(f"{path} ends the program (sys.exit, or a command line of its own); a config only describes")
    if isinstance(error, SyntaxError):
        where = f"{error.filename or path}, line {error.lineno or '?'}"
        return UserError(f"{where}: {type(error).__name__}: {error.msg}")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path.absolute())]
    where = f"{path}, line {frames[-1].lineno}" if frames else str(path)
    what = " ".join(str(error).split())
    what = f"{what[:400]} …" if len(what) > 400 else what
    return UserError(f"{where}: {type(error).__name__}: {what}{_hint(path, error)}")


def _hint(path: pathlib.Path, error: BaseException) -> str:
    beside = path.resolve().parent
    if isinstance(error, TypeError) and str(error).startswith("config() missing"):
        return "\nconfig() is called without arguments; give them defaults"
    if isinstance(error, FileNotFoundError) and error.filename and (beside / str(error.filename)).exists():
        return "\nit lies beside the config, but paths start in the current folder: pathlib.Path(__file__).parent / …"
    if not isinstance(error, ImportError) or not error.name:
        return ""
    top = error.name.partition(".")[0]
    found = project.find_file(top)
    namesake = next((root for root in folders(path) if project.has(root, top)), None)
    if namesake and found and not found.is_relative_to(namesake):
        return f"\nthe {top} that is imported is {found}, not the one in {namesake}; give yours another name"
    if isinstance(error, ModuleNotFoundError) and found is None and not namesake:
        return f"\n{top} is neither installed here nor beside the config; `uv pip install {top}` if it is a package"
    return ""
