"""An experiment's fields changed by the command line."""

import contextlib
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tyro

from jaxgen.config import codec, names
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment

YES, NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
UNITS = {"k": 3, "m": 6}


def override(experiment: Experiment, arguments: Sequence[str], prog: str) -> Experiment:
    """Change an experiment's fields by "--a.b.c VALUE" arguments; "--help" prints them all and exits.

    Numbers may be written as 1e4 and 10k, tuples of numbers as 5,6 or (5, 6), switches as true and false. Raises
    UserError in one line, with the right name for one that is known from elsewhere or mistyped.
    """
    stderr = io.StringIO()
    rows = codec.flatten(codec.encode(experiment))
    fields = {name.replace("_", "-"): text for name, text in rows.items()}
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(
                Experiment,
                default=experiment,
                args=list(_plain(arguments, fields)),
                prog=prog,
                config=(tyro.conf.AvoidSubcommands,),  # an optimizer that may be None is no command of its own
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_shorten(stderr.getvalue(), fields)) from None


def _plain(arguments: Sequence[str], fields: dict[str, str]) -> Iterator[str]:
    """Write values as tyro reads them."""
    words = list(arguments)
    while words:
        word = words.pop(0)
        option, equals, text = word.partition("=")
        name = option.removeprefix("--").replace("_", "-")
        before = _value(fields.get(name)) if option.startswith("--") else None
        if before is None:
            yield word
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                yield word
                continue
            text = words[0]
        if isinstance(before, bool):
            if text.lower() in (*YES, *NO):
                words = words if equals else words[1:]
                path, _, last = name.rpartition(".")
                prefix = f"--{path}." if path else "--"
                yield f"{prefix}{'' if text.lower() in YES else 'no-'}{last}"
            elif equals:
                raise UserError(f"{option} is {text!r}; it is true or false")
            else:
                yield word
            continue
        words = words if equals else words[1:]
        yield option
        yield from _read(option, text, before)


def _value(text: str | None) -> Any:
    """Return the value of a field; None where the field holds an object, or nothing."""
    try:
        return json.loads(text or "null")
    except ValueError:  # the name of a class
        return None


def _read(option: str, text: str, before: Any) -> list[str]:
    """Return a value's words for tyro: numbers in digits, a tuple's numbers one by one."""
    if not isinstance(before, str) and text.lower() in ("none", "null"):
        return ["None"]
    if isinstance(before, int):
        return [_whole(text)]
    if isinstance(before, float) and text.lower() == "nan":
        raise UserError(f"{option} is nan; it must be a number")
    if isinstance(before, list) and re.fullmatch(r"[(\[]?[-+.\de\s,]*[)\]]?", text):
        return [one for one in re.split(r"[\s,()\[\]]+", text) if one]
    return [text]


def _whole(text: str) -> str:
    """Return a whole number that is written as 1e4, 10k, 10_000 or 10,000 in digits; other texts as they are."""
    found = re.fullmatch(r"([+-]?\d+(?:[_,]\d{3})*(?:\.\d+)?)(?:e\+?(\d{1,2})|([km]))?", text.strip().lower())
    if not found:
        return text
    digits, power, unit = found.groups()
    number = float(re.sub("[_,]", "", digits)) * 10 ** int(power or UNITS.get(unit, 0))
    exact = "." not in digits and not (power or unit)
    return re.sub("[_,]", "", digits) if exact else str(round(number)) if math.isclose(number, round(number)) else text


def _shorten(box: str, fields: dict[str, str]) -> str:
    """Make one line of tyro's boxed message."""
    # A title and the message, parted by rules that depend on the terminal; more follows, also after a rule.
    lines = [line.strip("│| ").strip("─-") for line in box.splitlines()[1:]]
    message = " ".join(itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines)))
    if not message.startswith("Unrecognized"):
        return _valued(message)
    words = [word.strip(",") for word in message.partition(":")[2].split()]
    option = next((word for word in words if word.startswith("--")), None)
    if option is not None:
        return names.unknown(option, fields)
    name = words[0].lstrip("-").partition("=")[0].partition(":")[0].replace("_", "-") if words else ""
    if name in fields:
        return f"unknown option {words[0]}; write --{name} VALUE"
    if words and words[0].startswith(("-", "/")):
        return names.unknown(words[0], fields)
    return f"{message}; fields are changed by --name VALUE"


def _valued(message: str) -> str:
    """Say what value an option wants."""
    patterns = {
        r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)": r"\1 is \2; it must be a whole number",
        r"Error parsing (\S+): could not convert string to float: (.*)": r"\1 is \2; it must be a number",
        r"Missing value for argument '(\S+?)'.*": r"\1 has no value; write \1 VALUE",
    }
    for pattern, text in patterns.items():
        if re.fullmatch(pattern, message):
            return re.sub(pattern, text, message)
    return message or "the command line cannot be read"
