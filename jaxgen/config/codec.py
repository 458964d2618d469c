"""Experiments as JSON and as text."""

import ast
import dataclasses
import functools
import importlib
import json
import pathlib
import sys
from collections.abc import Collection, Iterator
from typing import Any

import flax.linen as nn

import jaxgen
from jaxgen.config import annotations, moved, project
from jaxgen.errors import UserError

LAYOUT = ("mesh", "rule", "loggers", "watchdog")  # fields that do not change which numbers are computed
DEPTH = 64  # of nested values; what people write is far below it


def encode(value: Any) -> Any:
    """Turn an experiment, or any part of it, into JSON that `decode` turns back.

    Raises UserError for values that JSON cannot hold, and for classes that could not be found again.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        if "." in kind.__qualname__ or not _is_value(kind):
            raise UserError(
                f"an experiment cannot hold {kind.__qualname__}: its classes are frozen dataclasses or Linen modules, "
                "defined at the top level of a module"
            )
        return {"type": f"{kind.__module__}:{kind.__name__}"} | {
            f.name: encode(getattr(value, f.name)) for f in fields_of(kind)
        }
    if isinstance(value, tuple):
        return [encode(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(
        f"an experiment holds frozen dataclasses, Linen modules, tuples, numbers, strings and None; "
        f"{type(value).__name__} {value!r:.60} is none of them"
    )


def decode(data: Any, allow: Collection[str] = (), run: pathlib.Path | None = None) -> Any:
    """Rebuild what `encode` wrote, by this version or an earlier one; the data need not be trusted.

    Only frozen dataclasses and Linen modules are rebuilt: those of jaxgen, of the user's own project (without what lies
    beside the run folder `run`; see `project.own_file`), and of the packages and folders in `allow`. Every type is
    checked before the first one is imported, every class before the first one is called, and every value against its
    field's annotation.

    Raises UserError in one line for everything else, and if a class or a field is not there any more.
    """
    _check_form(data, 0)
    data = moved.renamed(data)
    names = list(dict.fromkeys(node["type"] for node in _nodes(data)))
    own = {name: _check_name(name, allow, run) for name in names}
    kinds = {name: find(name, own[name]) for name in names}
    for node in _nodes(data):
        known = [f.name for f in fields_of(kinds[node["type"]])]
        for name in node:
            if name != "type" and name not in known:
                raise UserError(
                    f"this run was made by other code: {node['type']} has no field {name!r:.60}; "
                    f"it has {', '.join(known) or 'none'}"
                )
    return _build(data, kinds, "")


def foreign(data: Any, allow: Collection[str] = (), run: pathlib.Path | None = None) -> tuple[list[str], list[str]]:
    """Return the types in encoded data that are not jaxgen's: the user's own, and those of other packages.

    Raises UserError for a class that could not be found again.
    """
    names = [node["type"] for node in _nodes(data) if not node["type"].startswith("jaxgen.")]
    own = [name for name in dict.fromkeys(names) if project.own_file(name.partition(":")[0], run, allow)]
    others = [name for name in dict.fromkeys(names) if name not in own]
    for name in others:
        module, _, kind = name.partition(":")
        found = project.find_file(module)
        if found and run and project.beside(found, run):
            raise UserError(f"{kind} is defined in {found}, beside the run folder {run}; choose another --run-dir")
        if module.startswith(project.UNNAMED) or found is None:
            file = getattr(sys.modules.get(module), "__file__", None) or module
            raise UserError(
                f"{kind} could not be found again: it is defined in {file}, to which no import leads\ngive the file a "
                "name of letters, digits and _ that no other module has, or move the class to a module beside it"
            )
    return own, others


def _check_form(data: Any, depth: int) -> None:
    """Raise UserError unless the data has the form that `encode` writes."""
    if depth > DEPTH:
        raise UserError(f"this is no experiment: values are nested more than {DEPTH} deep")
    if isinstance(data, dict):
        if not isinstance(data.get("type"), str) or not all(isinstance(name, str) for name in data):
            raise UserError(f"this is no experiment: {data!r:.60} names no type; it has the form module:Class")
        module, _, name = data["type"].partition(":")
        if not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise UserError(f"this is no experiment: the type {data['type']!r:.60} does not have the form module:Class")
        data = list(data.values())
    if isinstance(data, list):
        for item in data:
            _check_form(item, depth + 1)
    elif not (data is None or isinstance(data, bool | int | float | str)):
        raise UserError(f"this is no experiment: JSON holds no {type(data).__name__}")


def _nodes(data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, dict):
        yield data
    if isinstance(data, dict | list):
        for item in data.values() if isinstance(data, dict) else data:
            yield from _nodes(item)


def _check_name(kind: str, allow: Collection[str], run: pathlib.Path | None) -> pathlib.Path | None:
    """Return the file of a type that may be rebuilt, as far as can be told without importing it; None where allowed.

    Raises UserError for all other types.
    """
    module, _, name = kind.partition(":")
    package = module.partition(".")[0]
    if module.rpartition(".")[2] == "__main__":
        raise UserError(f"{kind} is refused: it is of a program, not of a module; move the class to a module")
    if any(module == one or module.startswith(f"{one}.") for one in allow):
        return None
    if package == "jaxgen":
        file = project.file_below(jaxgen.__path__, module.split(".")[1:])
    else:
        file = project.own_file(module, run, allow)
        if file is None:
            raise UserError(f"{kind} is refused: it is neither of jaxgen nor of your own project in this folder; "
                            f"{_mend(package, run)}")  # fmt: skip
    if file is None or name not in _classes(file, file.stat().st_mtime_ns):
        raise UserError(f"{kind} cannot be rebuilt: there is no such class (this run was made by other code)")
    return file


def _mend(package: str, run: pathlib.Path | None) -> str:
    folders = project.stored(run)
    if any(project.has(folder, package) for folder in folders):
        return f"it was trained in {folders[0]}: run the command there, or add --allow {folders[0]}, if you trust it"
    return f"--allow {package} admits it, if you trust that package and the run"


@functools.lru_cache(maxsize=256)
def _classes(file: pathlib.Path, changed: int) -> frozenset[str]:
    """Return the names of the classes that a file, last changed at this time, defines at its top level."""
    del changed
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"cannot read {file}: {_one_line(error)}") from error
    return frozenset(_top_level(tree.body))


def _top_level(body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):  # also below "if" and "try"
            for field in ("body", "orelse", "finalbody"):
                yield from _top_level(getattr(node, field, []))


def find(kind: str, file: pathlib.Path | None = None) -> type:
    """Import the class that a name such as "jaxgen.models.dit:DiT" stands for; decide first whether it may be.

    Raises UserError if it is not there, or not in `file`, or is no frozen dataclass or Linen module of that module.
    """
    module, _, name = kind.partition(":")
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever a module of the project may raise when it is run
        raise UserError(f"{kind} cannot be rebuilt: {type(error).__name__}: {_one_line(error)}") from error
    origin = getattr(found, "__file__", None)
    if file is not None and origin is not None and not file.samefile(origin):
        raise UserError(f"{kind} cannot be rebuilt: {module} is already {origin}, and this run's is {file}")
    value = vars(found).get(name)
    if not isinstance(value, type) or (value.__module__, value.__qualname__) != (module, name) or not _is_value(value):
        raise UserError(f"{kind} is refused: it is no frozen dataclass or Linen module that is defined there")
    return value


def _build(data: Any, kinds: dict[str, type], path: str) -> Any:
    if isinstance(data, list):
        return tuple(_build(item, kinds, f"{path}.{i}" if path else str(i)) for i, item in enumerate(data))
    if not isinstance(data, dict):
        return data
    below = f"{path}." if path else ""
    fields = {name: _build(item, kinds, f"{below}{name}") for name, item in data.items() if name != "type"}
    kind = kinds[data["type"]]
    wrong = annotations.first_misfit(kind, fields)
    if wrong:
        name, wanted = wrong
        raise UserError(f"cannot rebuild {data['type']}: {below}{name} is {_short(fields[name])}; it must be {wanted}")
    try:
        return kind(**fields)
    except UserError:
        raise
    except Exception as error:  # whatever a class may make of values that no one would give it
        raise UserError(
            f"this run was made by other code: cannot rebuild {data['type']} ({_one_line(error)})"
        ) from error


def _short(value: Any) -> str:
    return type(value).__name__ if dataclasses.is_dataclass(value) else f"{value!r:.60}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _is_value(kind: type) -> bool:
    parameters: Any = getattr(kind, "__dataclass_params__", None)
    return issubclass(kind, nn.Module) or (parameters is not None and parameters.frozen)


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """List an experiment's fields by the names that the command line gives them."""
    if isinstance(value, dict) and "type" in value:
        rows = {} if not prefix else {prefix: value["type"].split(":")[1]}
        for key, v in value.items():
            if key != "type" and not (prefix == "objective" and key == "total_steps"):
                rows |= flatten(v, f"{prefix}.{key}" if prefix else key)
        return rows
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        rows = {}
        for i, v in enumerate(value):
            rows |= flatten(v, f"{prefix}.{i}")
        return rows
    return {prefix: json.dumps(value)}


def differences(old: Any, new: Any) -> list[str]:
    """Say for each field in which two encoded experiments differ: "seed: 0 -> 1"."""
    before, after = flatten(old), flatten(new)
    names = [*after, *(name for name in before if name not in after)]
    none = "(nothing)"
    return [
        f"{name}: {before.get(name, none)} -> {after.get(name, none)}"
        for name in names
        if before.get(name, none) != after.get(name, none)
    ]


def describe(value: Any, indent: str = "") -> str:
    """Print an experiment as the Python expression that makes it, a line for each field that holds a value."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = indent + "    "
        fields = [f"{inner}{f.name}={describe(getattr(value, f.name), inner)},\n" for f in fields_of(type(value))]
        return f"{type(value).__name__}({chr(10)}{''.join(fields)}{indent})" if fields else f"{type(value).__name__}()"
    if isinstance(value, tuple) and any(dataclasses.is_dataclass(v) for v in value):
        inner = indent + "    "
        return f"({chr(10)}{''.join(f'{inner}{describe(v, inner)},{chr(10)}' for v in value)}{indent})"
    return repr(value)


def fields_of(kind: type) -> list[dataclasses.Field[Any]]:
    """Return the fields that make up a value of this class."""
    hidden = {"parent", "name"} if issubclass(kind, nn.Module) else set()
    return [f for f in dataclasses.fields(kind) if f.init and f.name not in hidden]
