"""Whether values are of the types that their fields are annotated with, as far as annotations are plain."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", type(None): "None"}


@functools.cache
def annotations(kind: type) -> dict[str, Any]:
    """Return the annotations of a dataclass' fields; those that cannot be read are left out."""
    try:
        return typing.get_type_hints(kind)
    except Exception:  # names that exist for type checkers only, in whatever module the class is of
        return {f.name: f.type for f in dataclasses.fields(kind) if not isinstance(f.type, str)}


def misfit(value: Any, kind: Any) -> str | None:
    """Say what a value must be, if it is not of the annotated type: "a whole number"; None if it is.

    Tuples are what JSON's lists become. Annotations that are not plain (arrays, callables, protocols of values) are
    taken as fulfilled, but for a plain value in the place of an object.
    """
    kind = _plain(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        found = [misfit(value, one) for one in arguments]
        return None if None in found else " or ".join(dict.fromkeys(one for one in found if one))
    if origin is typing.Literal:
        return None if value in arguments else f"one of {', '.join(map(repr, arguments))}"
    if kind is tuple or origin is tuple:
        return _tuple(value, arguments)
    if kind is float:
        return None if isinstance(value, int | float) and not isinstance(value, bool) else WORDS[float]
    if kind is int:
        return None if isinstance(value, int) and not isinstance(value, bool) else WORDS[int]
    if kind in (str, bool, type(None), None):
        kind = type(None) if kind is None else kind
        return None if isinstance(value, kind) else WORDS[kind]
    if not isinstance(kind, type) or not (dataclasses.is_dataclass(kind) or getattr(kind, "_is_protocol", False)):
        return None
    if getattr(kind, "_is_protocol", False) or issubclass(kind, nn.Module):
        return None if dataclasses.is_dataclass(value) else f"of type {kind.__name__}"
    return None if isinstance(value, kind) else f"of type {kind.__name__}"


def _plain(kind: Any) -> Any:
    """Take off what an alias and a NewType put around a type."""
    while True:
        if isinstance(kind, typing.TypeAliasType):
            kind = kind.__value__
        elif isinstance(kind, typing.NewType):
            kind = kind.__supertype__
        elif typing.get_origin(kind) is typing.Annotated:
            kind = typing.get_args(kind)[0]
        else:
            return kind


def _tuple(value: Any, kinds: tuple[Any, ...]) -> str | None:
    if not isinstance(value, tuple):
        return "a tuple"
    if not kinds:
        return None
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        wrong = next((found for one in value if (found := misfit(one, kinds[0]))), None)
        return wrong and f"a tuple, each item {wrong}"
    if len(value) != len(kinds):
        return f"a tuple of {len(kinds)}"
    wrong = next((found for one, kind in zip(value, kinds, strict=True) if (found := misfit(one, kind))), None)
    return wrong and f"a tuple with {wrong}"


def first_misfit(kind: type, fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first field whose value is not of its annotated type, and what it must be."""
    for name, value in fields.items():
        wrong = misfit(value, annotations(kind).get(name, Any))
        if wrong:
            return name, wrong
    return None
