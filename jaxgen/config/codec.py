"""Experiments as JSON and as text."""

import dataclasses
import importlib
import json
from typing import Any

import flax.linen as nn

from jaxgen.errors import UserError

LAYOUT = ("mesh", "rule")  # fields that say where numbers are computed, and not which


def encode(value: Any) -> Any:
    """Turn an experiment, or any part of it, into JSON that `decode` turns back."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: encode(getattr(value, f.name)) for f in _fields(value)}
        return {"type": f"{type(value).__module__}:{type(value).__qualname__}", **fields}
    if isinstance(value, tuple):
        return [encode(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(
        f"an experiment holds frozen dataclasses, Linen modules, tuples, numbers, strings and None; "
        f"{type(value).__name__} {value!r:.60} is none of them"
    )


def decode(data: Any) -> Any:
    """Rebuild what `encode` wrote.

    Raises UserError if a class or a field that it names is not there any more.
    """
    if isinstance(data, list):
        return tuple(decode(v) for v in data)
    if not isinstance(data, dict):
        return data
    module, name = data["type"].split(":")
    try:
        found = getattr(importlib.import_module(module), name)
        return found(**{key: decode(v) for key, v in data.items() if key != "type"})
    except (ImportError, AttributeError, TypeError) as error:
        raise UserError(f"this run was made by other code: cannot rebuild {module}.{name} ({error})") from error


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """List an experiment's fields by the names that the command line gives them."""
    if isinstance(value, dict) and "type" in value:
        rows = {} if not prefix else {prefix: value["type"].split(":")[1]}
        for key, v in value.items():
            if key != "type" and not (prefix == "objective" and key == "steps"):
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
        fields = [f"{inner}{f.name}={describe(getattr(value, f.name), inner)},\n" for f in _fields(value)]
        return f"{type(value).__name__}({chr(10)}{''.join(fields)}{indent})" if fields else f"{type(value).__name__}()"
    if isinstance(value, tuple) and any(dataclasses.is_dataclass(v) for v in value):
        inner = indent + "    "
        return f"({chr(10)}{''.join(f'{inner}{describe(v, inner)},{chr(10)}' for v in value)}{indent})"
    return repr(value)


def _fields(value: Any) -> list[dataclasses.Field[Any]]:
    hidden = {"parent", "name"} if isinstance(value, nn.Module) else set()
    return [f for f in dataclasses.fields(value) if f.init and f.name not in hidden]
