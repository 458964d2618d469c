"""Which configs there are: found by path or by name, described by their docstrings, and not run."""

import ast
import difflib
import pathlib

from jaxgen.config import project
from jaxgen.errors import UserError


def find() -> list[pathlib.Path]:
    """Return the config files of the folder `configs` here, or else those that came with jaxgen."""
    return _below(pathlib.Path("configs")) or shipped()


def shipped() -> list[pathlib.Path]:
    """Return the config files that came with jaxgen, in the checkout that this package is in or in the package."""
    return _below(project.SHIPPED / "configs")


def _below(folder: pathlib.Path) -> list[pathlib.Path]:
    paths = sorted(folder.rglob("*.py")) if folder.is_dir() else []
    return [path for path in paths if not any(part[0] in "._" for part in path.relative_to(folder).parts)]


def name_of(path: pathlib.Path) -> str:
    """Return a config's name: its path below the folder `configs`, without the suffix, such as diffusion/digits_edm."""
    parts = path.with_suffix("").parts
    return "/".join(parts[len(parts) - parts[::-1].index("configs") :] if "configs" in parts else parts)


def locate(word: str | pathlib.Path) -> pathlib.Path:
    """Return the config file of a path, or of a name that `jaxgen list` prints; a file goes before a name.

    Raises UserError where there is none, with the nearest names.
    """
    path = pathlib.Path(word).expanduser()
    if word == "":
        raise UserError("the config's name is empty; `jaxgen list` shows what there is")
    if path.is_file():
        if path.suffix != ".py":
            mend = "; copy its code into a .py file" if path.suffix == ".ipynb" else ""
            raise UserError(f"{path} is not a Python file; a config is one, with a function config(){mend}")
        return path
    if path.suffix != ".py" and path.name and path.with_name(f"{path.name}.py").is_file():
        return path.with_name(f"{path.name}.py")
    if path.is_dir():
        inside = ", ".join(sorted(str(file) for file in path.rglob("*.py"))[:6]) or "it holds none"
        raise UserError(f"{path} is a folder; name a config: {inside}")
    wanted = path.with_suffix("").as_posix() if path.suffix == ".py" else path.as_posix()
    wanted = wanted.removeprefix("./").removeprefix("configs/")
    named = {name_of(file): file for file in (*shipped(), *find())}  # one's own goes before one of the same name
    if wanted in named:
        return named[wanted]
    same = [name for name in named if name.rpartition("/")[2] == wanted]
    if len(same) == 1:
        return named[same[0]]
    stems = {name.rpartition("/")[2]: name for name in named}
    alike = difflib.get_close_matches(wanted.rpartition("/")[2], stems, 3, cutoff=0.6)
    near = same or difflib.get_close_matches(wanted, named, 3, cutoff=0.85) or [stems[stem] for stem in alike]
    places = [n if named[n].is_absolute() else str(named[n]) for n in near[:3]]
    hint = f"perhaps you meant {' or '.join(places)}" if near else "`jaxgen list` shows what there is"
    raise UserError(f"there is no config {word}; {hint}")


def summary(path: pathlib.Path) -> tuple[str, str]:
    """Return (first line, result) of a config's docstring; the result is its paragraph that begins "Result:".

    A file that cannot be read as Python has the reason in place of its first line.
    """
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, ValueError, SyntaxError, RecursionError, MemoryError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        what = error.msg if isinstance(error, SyntaxError) else error
        return f"cannot be read{where}: {what}", "no result"
    paragraphs = (ast.get_docstring(tree) or "").split("\n\n")
    result = next((" ".join(p.split())[len("Result: ") :] for p in paragraphs if p.startswith("Result: ")), "no result")
    return paragraphs[0].replace("\n", " "), result
