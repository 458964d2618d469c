"""Values written on the command line as Python writes them: 'Heun(churn=10)', and nothing that could do more."""

import ast
import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from jaxgen.config import annotations
from jaxgen.diffusion.choices import GUIDANCE, SCHEDULES, SOLVERS
from jaxgen.errors import UserError
from jaxgen.runs.logs import JsonLines, TensorBoard, Terminal
from jaxgen.runs.report import Report
from jaxgen.runs.wandb import WandB

TABLES: dict[str, Mapping[str, type]] = {"solver": SOLVERS, "schedule": SCHEDULES, "guidance": GUIDANCE}
LOGGERS: Mapping[str, type] = {kind.__name__: kind for kind in (Terminal, JsonLines, TensorBoard, Report, WandB)}


def parse_options(texts: Mapping[str, str | float | None]) -> dict[str, Any]:
    """Read the options that say how samples are made, as `Generative.with_options` takes them; None is left out.

    Raises UserError for a text that is no value of its table.
    """
    return {
        name: value(text, TABLES[name]) if isinstance(text, str) else text
        for name, text in texts.items()
        if text is not None
    }


def value(text: str, table: Mapping[str, type]) -> Any:
    """Make the value that a call such as 'Rho(steps=10)' stands for; it reads back what `codec.describe` prints.

    The table has the classes by name. Arguments are named, and are numbers, strings, None, inf, tuples of these, or
    further calls. Raises UserError if the text is no such call, or if a class or a field is not there.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if not isinstance(tree, ast.Call):
        raise UserError(f"{text!r} is no value; write it as a call with named arguments, such as 'Heun(churn=10)'")
    return _evaluate(tree, text, table)


def _evaluate(node: ast.expr, text: str, table: Mapping[str, type]) -> Any:
    match node:
        case ast.Call(func=ast.Name(id=name), args=[], keywords=keywords) if all(word.arg for word in keywords):
            if name not in table:
                near = difflib.get_close_matches(name, table, 1)
                hint = f"perhaps you meant {near[0]}" if near else f"there are {', '.join(sorted(table))}"
                raise UserError(f"{text!r}: there is no {name}; {hint}")
            fields = {word.arg: _evaluate(word.value, text, table) for word in keywords if word.arg is not None}
            wrong = annotations.first_misfit(table[name], fields)
            if wrong:
                raise UserError(f"{text!r}: {wrong[0]} is {fields[wrong[0]]!r}; it must be {wrong[1]}")
            try:
                return table[name](**fields)
            except TypeError as error:
                known = ", ".join(f.name for f in dataclasses.fields(table[name])) or "none"
                raise UserError(f"{text!r}: {str(error).split('() ')[-1]}; fields of {name}: {known}") from error
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub(), operand=ast.Name(id="inf")):
            return -math.inf
        case ast.Tuple(elts=items):
            return tuple(_evaluate(item, text, table) for item in items)
        case ast.Constant(value=bool() | int() | float() | str() | None as constant):
            return constant
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)) if number is not True:
            return -number
    raise UserError(f"{text!r}: arguments are named, and are numbers, strings, None, inf, tuples or further calls")
