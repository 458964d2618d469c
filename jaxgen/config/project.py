"""Which modules are the user's own: those of the project, the folder that the command is run in.

Nothing is imported here: modules are looked up as files.
"""

import importlib
import importlib.machinery
import pathlib
import sys
from collections.abc import Iterable, Sequence

VENV = ("site-packages", "dist-packages")


def make_importable() -> None:
    """Let modules of the project be imported, after all others, as `python -m` would."""
    here = str(pathlib.Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)


def module_name(file: pathlib.Path) -> str:
    """Return the dotted name by which a Python file of the project is imported; its stem for files elsewhere."""
    file = file.resolve()
    for root in (pathlib.Path.cwd(), *map(pathlib.Path, sys.path)):
        parts = file.with_suffix("").relative_to(root.resolve()).parts if file.is_relative_to(root.resolve()) else ()
        if parts and all(part.isidentifier() for part in parts):
            return ".".join(parts)
    return file.stem


def own_file(module: str, run: pathlib.Path | None = None) -> pathlib.Path | None:
    """Return the file of a module of the project; None for all other modules.

    Not the project's own: the standard library, installed packages, what a link leads out of the folder to, and what
    came with a run: files in a run folder, and below the same top-level folder of the project as the folder `run`.
    """
    top, *rest = module.split(".")
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return None
    make_importable()
    importlib.invalidate_caches()
    spec = importlib.machinery.PathFinder.find_spec(top)
    if spec is None:
        return None
    if rest:
        file = file_below(spec.submodule_search_locations or (), rest)
    else:
        file = pathlib.Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    return file if file and _is_own(file.resolve(), run) else None


def file_below(folders: Iterable[str], parts: Sequence[str]) -> pathlib.Path | None:
    """Return the file of the module `parts` of a package that lies in these folders."""
    for folder in folders:
        path = pathlib.Path(folder).joinpath(*parts)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def _is_own(file: pathlib.Path, run: pathlib.Path | None) -> bool:
    project = pathlib.Path.cwd().resolve()
    if not file.is_relative_to(project):
        return False
    inside = file.relative_to(project).parts
    if any(part in VENV or part.startswith(".") for part in inside):
        return False
    for prefix in {pathlib.Path(sys.prefix).resolve(), pathlib.Path(sys.base_prefix).resolve()}:
        if prefix != project and prefix.is_relative_to(project) and file.is_relative_to(prefix):
            return False
    folders = [project.joinpath(*inside[:i]) for i in range(len(inside))]
    if any((folder / "experiment.json").exists() or (folder / "pyvenv.cfg").exists() for folder in folders):
        return False
    if run is None or not run.resolve().is_relative_to(project):
        return True
    return run.resolve() != project and run.resolve().relative_to(project).parts[0] != inside[0]
