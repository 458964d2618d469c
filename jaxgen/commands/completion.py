"""`jaxgen completion SHELL`: a script for the shell, which asks this command for words that go on a command line."""

import argparse
import contextlib
import importlib
import io
import pathlib
import re
from collections.abc import Sequence

from jaxgen.commands import COMMANDS
from jaxgen.commands.output import Parser
from jaxgen.config import catalogue
from jaxgen.errors import UserError

# Each asks `jaxgen completion words COMMAND …` for one word a line; the shell adds files where there are none.
BASH = """
_jaxgen() {
    local IFS=$'\\n'
    COMPREPLY=($(jaxgen completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _jaxgen jaxgen
"""
SCRIPTS = {
    "bash": BASH,
    "zsh": f"autoload -U +X bashcompinit && bashcompinit\n{BASH.strip()}\n",
    "fish": """
function __jaxgen
    jaxgen completion words -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null
end
complete -c jaxgen -a '(__jaxgen)'
""",
}
OF_CONFIG = ("train", "plan", "data", "prepare")  # commands whose first word is a config
# Those whose first word is a run folder.
OF_RUN = ("eval", "sample", "interpolate", "predict", "restore", "inspect", "report")


def run(prog: str, arguments: list[str]) -> None:
    """Print the script of a shell, or the words that may come at the end of a command line."""
    parser = Parser(prog, "Complete commands, options, configs and run folders in the shell.")
    parser.add_argument("shell", choices=[*SCRIPTS, "words"], help="bash, zsh or fish; words: what the script asks for")
    parser.add_argument("line", nargs=argparse.REMAINDER, help="the words after `jaxgen`, the last one unfinished")
    args = parser.parse_args(arguments)
    if args.shell in SCRIPTS:
        if args.line:
            raise UserError(f"{args.line[0]!r} is one word too many; `{prog} {args.shell}` prints the script")
        print(SCRIPTS[args.shell].strip())
        return
    for word in words(args.line[1:] if args.line[:1] == ["--"] else args.line):
        print(word)


def words(line: Sequence[str]) -> list[str]:
    """Return the words that can stand in the place of the last one, which may be empty or unfinished."""
    begun = line[-1] if line else ""
    if len(line) < 2:
        return [name for name in COMMANDS if name.startswith(begun)]
    command = line[0]
    if command not in COMMANDS:
        return []
    if begun.startswith("-"):
        return [option for option in _options(COMMANDS[command][0]) if option.startswith(begun)]
    if len(line) == 2 and command in OF_CONFIG:
        return [name for name in map(catalogue.name_of, catalogue.shipped()) if name.startswith(begun)]
    if len(line) == 2 and command in OF_RUN and "/" not in begun:
        runs = sorted(str(path.parent) for path in pathlib.Path("runs").glob("*/experiment.json"))
        return [folder for folder in runs if folder.startswith(begun)]
    return []


def _options(file: str) -> list[str]:
    """Return the options that a command's help lists."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module(f"jaxgen.commands.{file}").run("jaxgen", ["--help"])
    return list(dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.getvalue())))
