"""Values written on the command line as Python writes them: 'Heun(churn=10)', and nothing that could do more."""

import ast
import dataclasses
import difflib
import importlib
import math
import pkgutil
from collections.abc import Mapping
from typing import Any

from jaxgen.errors import UserError
from jaxgen.experiment import Experiment

# What each part of a `Sampling` is known by.
SAMPLING = {"solver": "solve", "grid": "sigmas", "guidance": "evaluations"}


def value(text: str, package: str, method: str) -> Any:
    """Make the frozen dataclass that a call such as 'Rho(steps=10)' names: one of a package's that have this method.

    Arguments are numbers, strings, None, inf, tuples of these, or further calls.
    Raises UserError if the text is no such call or a name or a field is not there.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise UserError(
            f"{text!r} is no value; write it as a call with named arguments, such as 'Heun(churn=10)'"
        ) from error
    if not isinstance(tree, ast.Call):
        raise UserError(f"{text!r} is no value; write it as a call with named arguments, such as 'Heun(churn=10)'")
    return _made(tree, text, _known(package, method))


def with_sampling(experiment: Experiment, texts: Mapping[str, str | None]) -> Experiment:
    """Return the experiment with the parts of its objective's `sampling` that are not None replaced by these values.

    Raises UserError if the objective has no sampling.
    """
    values = {name: value(text, "jaxgen.diffusion", SAMPLING[name]) for name, text in texts.items() if text is not None}
    if not values:
        return experiment
    objective: Any = experiment.objective
    if not hasattr(objective, "sampling"):
        raise UserError(f"{type(objective).__name__} has no {', '.join(values)} to choose")
    sampling = dataclasses.replace(objective.sampling, **values)
    return dataclasses.replace(experiment, objective=dataclasses.replace(objective, sampling=sampling))


def with_truncation(experiment: Experiment, truncation: float | None) -> Experiment:
    """Return the experiment with this truncation of its samples, where one is given.

    Raises UserError if the objective has none.
    """
    objective: Any = experiment.objective
    if truncation is None:
        return experiment
    if not hasattr(objective, "truncation"):
        raise UserError(f"{type(objective).__name__} has no truncation to choose")
    return dataclasses.replace(experiment, objective=dataclasses.replace(objective, truncation=truncation))


def _known(package: str, method: str) -> dict[str, type]:
    found: dict[str, type] = {}
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        loaded = importlib.import_module(f"{package}.{module.name}")
        for name, item in vars(loaded).items():
            if isinstance(item, type) and dataclasses.is_dataclass(item) and hasattr(item, method):
                found[name] = item
    return found


def _made(node: ast.expr, text: str, known: dict[str, type]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords):
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"perhaps you meant {near[0]}" if near else f"there are {', '.join(sorted(known))}"
                raise UserError(f"{text!r}: there is no {name}; {hint}")
            given = {word.arg: _made(word.value, text, known) for word in keywords if word.arg}
            try:
                return known[name](**given)
            except TypeError as error:
                fields = ", ".join(f.name for f in dataclasses.fields(known[name])) or "none"
                raise UserError(f"{text!r}: {str(error).split('() ')[-1]}; fields of {name}: {fields}") from error
        case ast.Name(id="inf"):
            return math.inf
        case ast.Tuple(elts=items):
            return tuple(_made(item, text, known) for item in items)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UserError(
            f"{text!r}: arguments are named, and are numbers, strings, None, inf, tuples or further calls"
        ) from error
