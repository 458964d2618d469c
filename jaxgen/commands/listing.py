"""`jaxgen list`: every config with its result and what that costs."""

from jaxgen.commands.output import Parser, print_json
from jaxgen.config import files


def run(prog: str, arguments: list[str]) -> None:
    """Print a line for each config."""
    args = Parser(prog, "Every config, with its result and what that costs.").with_json().parse_args(arguments)
    rows = [(f"{path.parent.name}/{path.stem}", *files.summary(path)) for path in files.find()]
    if args.json:
        return print_json({"configs": [dict(zip(("name", "summary", "result"), row, strict=True)) for row in rows]})
    wide = max((len(name) for name, _, _ in rows), default=0)
    for name, what, result in rows:
        print(f"{name:<{wide}}  {what} {result}")
