"""`jaxgen list`: every config with its result and what that costs."""

import itertools
import pathlib
import textwrap

from jaxgen.commands.output import Parser, print_json
from jaxgen.config import catalogue
from jaxgen.errors import UserError

WIDTH = 100  # columns


def run(prog: str, arguments: list[str]) -> None:
    """Print each config with its first line and its result, in groups by task."""
    parser = Parser(prog, "Every config, with its result and what that costs.").with_json()
    parser.add_argument("pattern", nargs="?", default="", metavar="TASK|PATTERN", help="configs whose names have this")
    args = parser.parse_args(arguments)
    found = catalogue.find()
    wanted = [path for path in found if _matches(catalogue.name_of(path), args.pattern)]
    if not wanted and args.pattern:
        tasks = ", ".join(dict.fromkeys(catalogue.name_of(path).partition("/")[0] for path in found))
        raise UserError(f"no config has {args.pattern!r} in its name; tasks: {tasks}")
    rows = [(catalogue.name_of(path), *catalogue.summary(path)) for path in wanted]
    if args.json:
        return print_json({"configs": [dict(zip(("name", "summary", "result"), row, strict=True)) for row in rows]})
    print(*lines(rows, whole=bool(args.pattern)), sep="\n")


def _matches(name: str, pattern: str) -> bool:
    return pathlib.PurePath(name).match(pattern) if "*" in pattern else pattern.lower() in name.lower()


def lines(rows: list[tuple[str, str, str]], *, whole: bool) -> list[str]:
    """Lay names, first lines and results out in groups, results whole or cut to a line, none wider than 100 columns."""
    out = []
    for task, group in itertools.groupby(rows, lambda row: row[0].rpartition("/")[0]):
        out += [""] if out else []
        for name, *texts in group:
            out.append(name if task else name.rpartition("/")[2])
            for text in texts:
                short = text if whole else textwrap.shorten(text, WIDTH - 4, placeholder=" …")
                out += textwrap.wrap(short, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return out
