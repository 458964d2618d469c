"""The face: `train.py CONFIG` trains, `jaxgen COMMAND` does everything with what training left behind."""

import difflib
import errno
import importlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence

from jaxgen.commands import COMMANDS
from jaxgen.errors import UserError
from jaxgen.parallel import huge_pages, tpu
from jaxgen.runs import signals

# What the system says of a disk that was in order when the work began.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


def train(arguments: Sequence[str] | None = None) -> int:
    """Run `train.py CONFIG [--run-dir DIR] [--a.b.c VALUE …]` and return the exit status."""
    if arguments is None:
        _begin_process()
    return _run("train", "train.py", sys.argv[1:] if arguments is None else list(arguments))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `jaxgen COMMAND …` and return the exit status."""
    if arguments is None:
        _begin_process()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, 1)
        hint = f"perhaps you meant {near[0]}" if near else f"there are {', '.join(COMMANDS)}"
        print(f"error: there is no command {words[0]!r}; {hint}", file=sys.stderr)
        return 2
    return _run(words[0], f"jaxgen {words[0]}", words[1:])


def _begin_process() -> None:
    """Set up what is this process's alone: its memory, what signals do, and text that the terminal cannot show."""
    huge_pages.ask()
    signals.end_at_once()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _run(command: str, prog: str, arguments: list[str]) -> int:
    module = importlib.import_module(f"jaxgen.commands.{COMMANDS[command][0]}")
    return _guarded(lambda: module.run(prog, arguments))


def _guarded(run: Callable[[], None]) -> int:
    """Turn a user's mistake into its one or two lines and status 2, a signal into its status."""
    tpu.spare_libtpu()
    # Libraries report through absl what we report ourselves.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except signals.Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.status
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror}; what was saved before is whole", file=sys.stderr)
        return 2
    return 0


def _usage() -> str:
    wide = max(map(len, COMMANDS))
    lines = [f"  {name:<{wide}}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(["usage: jaxgen COMMAND …; `jaxgen COMMAND --help` lists its options", "", *lines])
