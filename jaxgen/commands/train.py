"""`train.py CONFIG`, or `jaxgen train CONFIG`: the main job."""

import argparse
import pathlib

from jaxgen import loop
from jaxgen.config import files, overrides
from jaxgen.errors import UserError
from jaxgen.parallel import processes
from jaxgen.runs.folder import RunFolder


def run(prog: str, arguments: list[str]) -> None:
    """Train a config, or go on with its run."""
    usage = f"usage: {prog} CONFIG [--run-dir DIR] [--FIELD VALUE …]; {prog} CONFIG --help lists the fields"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return
    if arguments[0].startswith("-"):
        raise UserError(f"the config comes first. {usage}")
    path, rest = pathlib.Path(arguments[0]), arguments[1:]
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--run-dir", type=pathlib.Path, default=pathlib.Path("runs") / path.stem)
    own.add_argument("--allow", action="append", default=[])
    try:
        args, rest = own.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    experiment = overrides.override(files.load(path), rest, prog=f"{prog} {path}")
    processes.initialize()
    processes.use_compilation_cache()
    folder = RunFolder(args.run_dir, tuple(args.allow))
    loop.train(experiment, folder)
    if processes.is_main_process():
        print(f"run folder: {folder.path}")
