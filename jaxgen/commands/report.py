"""`jaxgen report`: one self-contained page on a run, or on several beside each other."""

import pathlib
from typing import Any

from jaxgen.commands.output import Parser, check_file, print_json, writing
from jaxgen.report import compare, page, record
from jaxgen.report.record import Record

SUFFIXES = (".html", ".htm")


def run(prog: str, arguments: list[str]) -> None:
    """Write the page and say where it is."""
    parser = Parser(prog, "One self-contained page on a run, or on several beside each other.").with_json()
    parser.add_argument(
        "folders",
        type=pathlib.Path,
        nargs="+",
        metavar="RUN",
        help="a run folder, finished or not; several are compared",
    )
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FILE.html",
        help="where to write the page; report.html by default, in the run folder, or here where runs are compared",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    names = compare.labels(args.folders)
    records = [record.read(folder) for folder in args.folders]
    alone = len(records) == 1
    out = args.out or (records[0].files.report if alone else pathlib.Path("report.html"))
    check_file(out, SUFFIXES)
    with writing():
        page.write(out, page.of_run(records[0]) if alone else page.of_runs(records, names))
    if args.json:
        return print_json({"report": str(out), "runs": [_told(one) for one in records]})
    print(f"report: {out}")


def _told(one: Record) -> dict[str, Any]:
    return {
        "run": str(one.files.path),
        "state": one.status,
        "step": one.step,
        "steps": one.steps,
        "metrics": dict(one.results),
    }
