"""An experiment's fields changed by the command line."""

import contextlib
import difflib
import io
import itertools
from collections.abc import Sequence

import tyro

from jaxgen.config import codec
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment


def override(experiment: Experiment, arguments: Sequence[str], prog: str) -> Experiment:
    """Change an experiment's fields by "--a.b.c VALUE" arguments; "--help" prints them all and exits.

    Raises UserError in one line, with the nearest name for a mistyped one.
    """
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            return tyro.cli(
                Experiment,
                default=experiment,
                args=list(arguments),
                prog=prog,
                config=(tyro.conf.AvoidSubcommands,),  # an optimizer that may be None is no command of its own
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UserError(_shorten(stderr.getvalue(), experiment)) from None


def _shorten(box: str, experiment: Experiment) -> str:
    """Make one line of tyro's boxed message, and put the nearest field's name to an unknown one."""
    # A title and the message, parted by rules that depend on the terminal; more follows, also after a rule.
    lines = [line.strip("│| ").strip("─-") for line in box.splitlines()[1:]]
    message = " ".join(itertools.takewhile(bool, itertools.dropwhile(lambda line: not line, lines)))
    unknown = [word.strip(",") for word in message.split() if word.startswith("--")]
    if not message.startswith("Unrecognized"):
        return message or "the command line cannot be read"
    if not unknown:
        return f"{message}; fields are changed by --name VALUE"
    word = unknown[0].partition("=")[0]
    fields = ["--" + name.replace("_", "-") for name in codec.flatten(codec.encode(experiment))]
    fields = [name for name in fields if not any(other.startswith(f"{name}.") for other in fields)]

    def likeness(name: str) -> float:
        parts = [f"--{part}" for part in name.lstrip("-").split(".")]
        return max(difflib.SequenceMatcher(None, word, text).ratio() for text in (name, *parts))

    ordered = sorted(fields, key=lambda name: (-likeness(name), name.count(".")))
    near = [name for name in ordered[:2] if likeness(name) > 0.7]
    hint = f"perhaps you meant {' or '.join(near)}" if near else "--help lists the names"
    return f"unknown option {word}; {hint}"
