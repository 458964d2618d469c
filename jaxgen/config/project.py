"""Which modules are the user's own: those of a project, the folder of a config or the one that a command is run in.

Nothing is imported here: modules are looked up as files.
"""

import importlib
import importlib.machinery
import json
import keyword
import os
import pathlib
import sys
from collections.abc import Iterable, Sequence

from jaxgen.errors import UserError

VENV = ("site-packages", "dist-packages")
MARKS = ("pyproject.toml", ".git")  # of a project's top folder
UNNAMED = "_config_"  # begins the modules of configs that no import leads to
STORED = "project.json"  # in a run folder: the folders of the project that it was trained from


def _shipped() -> pathlib.Path:
    checkout = pathlib.Path(__file__).parents[2]
    return checkout if (checkout / "configs").is_dir() else pathlib.Path(__file__).parents[1] / "shipped"


# The folder that the configs that came with jaxgen lie in, as `configs`: configs of one's own may import from them.
SHIPPED = _shipped()
# Folders that were put on the import path here, and not by whoever started Python.
_added: list[str] = []


def folders_of(config: pathlib.Path, known: Sequence[pathlib.Path] = ()) -> tuple[pathlib.Path, ...]:
    """Return the folders that a config's modules are imported from: its project's, and its own.

    The project is the first of `known` that the config lies in, else the current folder if the config lies in it, else
    the nearest folder above it with a pyproject.toml or a .git, else the config's own folder.
    """
    own = config.resolve().parent
    marked = [folder for folder in (own, *own.parents) if any((folder / mark).exists() for mark in MARKS)]
    above = [folder for folder in (*known, pathlib.Path.cwd().resolve(), *marked[:1]) if own.is_relative_to(folder)]
    return tuple(dict.fromkeys([*above[:1], own]))


def make_importable(folders: Sequence[pathlib.Path] = ()) -> None:
    """Let modules of these folders, or else of the current one, be imported after all others.

    Folders of another project leave the import path, and so do its modules that have a namesake in these folders.
    """
    before = tuple(_added)
    for folder in before:
        _added.remove(folder)
        if folder in sys.path:
            sys.path.remove(folder)
    here = pathlib.Path.cwd()
    for folder in map(str, (*(folders or (here,)), SHIPPED)):
        if folder not in sys.path and not (folder == str(here) and "" in sys.path):
            sys.path.append(folder)
            _added.append(folder)
    importlib.invalidate_caches()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(pathlib.Path(file).is_relative_to(folder) for folder in before):
            found = find_file(name)
            if found is not None and found.resolve() != pathlib.Path(file).resolve():
                del sys.modules[name]


def module_name(file: pathlib.Path, folders: Sequence[pathlib.Path] = ()) -> str | None:
    """Return the dotted name by which a Python file is imported; None where no name leads to it.

    Looked for in `folders` first, then on the import path.
    """
    file = file.resolve()
    for root in (*folders, *map(pathlib.Path, sys.path)):
        root = root.resolve()
        parts = file.with_suffix("").relative_to(root).parts if file.is_relative_to(root) else ()
        if parts and all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            found = None if _is_pythons(parts[0]) else find_file(".".join(parts))
            if found is not None and found.resolve() == file:
                return ".".join(parts)
    return None


def _is_pythons(top: str) -> bool:
    return top in sys.stdlib_module_names or top in sys.builtin_module_names or top == "__main__"


def find_file(module: str) -> pathlib.Path | None:
    """Return the file that a module would be imported from; None for what has no Python file."""
    top, *rest = module.split(".")
    try:
        spec = importlib.machinery.PathFinder.find_spec(top)
    except ValueError:
        return None
    if spec is None:
        return None
    if rest:
        return file_below(spec.submodule_search_locations or (), rest)
    return pathlib.Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def own_file(module: str, run: pathlib.Path | None = None, allow: Iterable[str] = ()) -> pathlib.Path | None:
    """Return the file of a module of the user's own project; None for all other modules.

    The user's own are the folder that the run's config was trained from by this user on this machine, the folders in
    `allow`, and the current one. Never the user's own: the standard library, installed packages, what a link leads out
    of the folder to, and what came with a run: files in a run folder, and below the same top-level folder of the
    project as the folder `run`.
    """
    if _is_pythons(module.partition(".")[0]):
        return None
    trusted = [pathlib.Path(one).expanduser().resolve() for one in allow if is_folder(one)]
    trusted += [folder for folder in stored(run) if str(folder) in remembered()]
    folders = (*trusted, pathlib.Path.cwd().resolve())
    make_importable(folders)
    file = find_file(module)
    if file is None or not any(_is_own(file.resolve(), folder, run) for folder in folders):
        return None
    first = file_below(map(str, folders), module.split("."))
    if first is not None and first.resolve() != file.resolve():
        raise UserError(f"{module} would be imported from {file}, which hides {first}; run the command elsewhere")
    return file


def beside(file: pathlib.Path, run: pathlib.Path) -> bool:
    """Whether a file that is not of an installed package lies in a run folder, or below the folder that it is in."""
    inside = file.resolve().is_relative_to(run.resolve().parent)
    return inside and not any(part in VENV for part in file.parts)


def has(folder: pathlib.Path, module: str) -> bool:
    """Whether a top-level module or package of this name lies in a folder."""
    return (folder / f"{module}.py").is_file() or (folder / module).is_dir()


def is_folder(word: str) -> bool:
    """Whether a word of `--allow` is a folder, and not a package."""
    return os.sep in word or word in (".", "..", "~")


def file_below(folders: Iterable[str], parts: Sequence[str]) -> pathlib.Path | None:
    """Return the file of the module `parts` of a package that lies in these folders."""
    for folder in folders:
        path = pathlib.Path(folder).joinpath(*parts)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def _is_own(file: pathlib.Path, project: pathlib.Path, run: pathlib.Path | None) -> bool:
    if not file.is_relative_to(project) or (run is not None and project.is_relative_to(run.resolve())):
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


# --- which folders are projects ---------------------------------------------------------------------------------------


def stored(run: pathlib.Path | None) -> tuple[pathlib.Path, ...]:
    """Return the folders that a run folder says it was trained from; they are not trusted by that."""
    try:
        found = json.loads((run / STORED).read_text())["folders"] if run else ()
        return tuple(pathlib.Path(one) for one in found if isinstance(one, str) and pathlib.Path(one).is_absolute())
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def store(run: pathlib.Path, folders: Sequence[pathlib.Path]) -> None:
    """Write into a run folder which folders it is trained from; raise OSError where that cannot be."""
    (run / STORED).write_text(json.dumps({"folders": [str(folder) for folder in folders]}))


def _memory() -> pathlib.Path:
    state = os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state"
    return pathlib.Path(state) / "jaxgen" / "projects"


def remembered() -> frozenset[str]:
    """Return the folders that this user has trained from on this machine, from a file in the user's state folder."""
    try:
        lines = _memory().read_text().splitlines()
        return frozenset(one for one in map(json.loads, lines) if isinstance(one, str))
    except (OSError, ValueError, RuntimeError):  # not there, not ours, or a user without a home
        return frozenset()


def remember(folders: Sequence[pathlib.Path]) -> None:
    """Add the folders to those that this user has trained from; the home folder and those above it stay out."""
    try:
        home = pathlib.Path.home().resolve()
        new = [str(folder) for folder in folders if not home.is_relative_to(folder)]
        new = [folder for folder in new if folder not in remembered()]
        if new:
            _memory().parent.mkdir(parents=True, exist_ok=True)
            with _memory().open("a") as file:  # a line each: several processes may write at once
                file.write("".join(f"{json.dumps(folder)}\n" for folder in new))
    except (OSError, RuntimeError) as error:
        print(f"note: commands on this run work in {folders[0]} only: cannot remember it ({error})", file=sys.stderr)
