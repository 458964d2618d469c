"""`train.py CONFIG`, or `jaxgen train CONFIG`: the main job."""

import argparse
import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from jaxgen import loop
from jaxgen.commands.output import note
from jaxgen.config import catalogue, codec, expression, files, overrides, project
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel import processes
from jaxgen.runs.folder import RunFolder

OPTIONS = """
CONFIG is a file, or a name that `jaxgen list` prints, such as diffusion/digits_edm. The same command goes on with an
interrupted run.

  --run-dir DIR      where the run is kept; runs/NAME-OF-THE-CONFIG by default
  --epochs N         train for N passes over the training examples, in the place of --steps
  --log LOGGER       add a logger, such as 'WandB(project="digits")'; may be given several times
  --allow PACKAGE    let the run folder name classes of this package, or of the project in this folder, too
  --FIELD VALUE      change a field of the experiment; all are listed below, where CONFIG is given
"""


def run(prog: str, arguments: list[str]) -> None:
    """Train a config, or go on with its run."""
    usage = f"usage: {prog} CONFIG [--run-dir DIR] [--epochs N] [--FIELD VALUE …]"
    if not arguments:
        raise UserError(f"which config? `jaxgen list` shows what there is. {usage}")
    if arguments[0] in ("-h", "--help", "help"):
        print(f"{usage}\n{OPTIONS}".rstrip())
        return
    word, rest = _config_first(arguments, f"{usage}; {prog} CONFIG --help lists the fields")
    path = catalogue.locate(word)
    args, rest = _options(path).parse_known_args(_dashed(rest))
    if "-h" in rest or "--help" in rest:
        print(f"{usage}\n{OPTIONS}", flush=True)
    known = [folder for folder in project.stored(args.run_dir) if str(folder) in project.remembered()]
    experiment = overrides.override(files.load(path, known), rest, prog=f"{prog} {word}")
    experiment = _logging(experiment, args.log)
    folders = files.folders(path, known)
    allow = (*args.allow, *(f"{folder}/" for folder in folders))
    uses_own, notes = _check_reopening(experiment, allow, args.run_dir)
    if args.epochs is not None and any(one.partition("=")[0] == "--steps" for one in rest):
        raise UserError("--epochs and --steps both say how long to train; give one of them")
    processes.initialize()
    processes.use_compilation_cache()
    if args.epochs is not None:
        experiment, line = _for_epochs(experiment, args.epochs)
        notes.append(line)
    for line in notes if processes.is_main_process() else ():
        note(line)
    own = folders if uses_own else ()
    if processes.is_main_process():
        project.remember(own)
    folder = RunFolder(args.run_dir, allow, own)
    loop.train(experiment, folder)
    if processes.is_main_process():
        print(f"run folder: {folder.path}")


def _config_first(arguments: list[str], usage: str) -> tuple[str, list[str]]:
    """Part the config from the options, where it may also be named --config, or come after options with one word each.

    Raises UserError if none of the words is a config.
    """
    for i, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        if option in ("--config", "-c"):
            if not equals and i + 1 == len(arguments):
                raise UserError(f"{word} has no value. {usage}")
            return (value, arguments[:i] + arguments[i + 1 :]) if equals else (
                arguments[i + 1], arguments[:i] + arguments[i + 2 :]
            )  # fmt: skip
    if not arguments[0].startswith("-"):
        return arguments[0], arguments[1:]
    files_here = [word for word in arguments if word.endswith(".py") and pathlib.Path(word).is_file()]
    if len(files_here) == 1:
        return files_here[0], [word for word in arguments if word != files_here[0]]
    raise UserError(f"the config comes first. {usage}")


def _dashed(words: Sequence[str]) -> list[str]:
    """Write --run_dir as --run-dir, as fields may be written both ways."""
    return [word.replace("_", "-", 1) if word.startswith("--run_dir") else word for word in words]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UserError(message)


def _options(path: pathlib.Path) -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--run-dir", type=pathlib.Path, default=pathlib.Path("runs") / path.stem)
    parser.add_argument("--epochs", type=float)
    parser.add_argument("--log", action="append", default=[])
    parser.add_argument("--allow", action="append", default=[])
    return parser


def _logging(experiment: Experiment, texts: Sequence[str]) -> Experiment:
    """Add loggers that are written as Python writes them."""
    loggers = list(experiment.loggers)
    for text in texts:
        logger = expression.value(f"{text}()" if text.isidentifier() else text, expression.LOGGERS)
        loggers += [] if logger in loggers else [logger]
    return dataclasses.replace(experiment, loggers=tuple(loggers))


def _for_epochs(experiment: Experiment, epochs: float) -> tuple[Experiment, str]:
    """Return the experiment with the steps of so many passes over its training examples, and a line that says so."""
    if not (math.isfinite(epochs) and epochs > 0):
        raise UserError(f"--epochs is {epochs:g}; it must be more than 0")
    count = len(experiment.train.source.open())
    # Rounded first, because 0.1 of 30 examples is a little more than 3 in floating point.
    steps = max(1, math.ceil(round(epochs * count / experiment.batch_size, 6)))
    line = f"{epochs:g} epochs of {count:,} examples in batches of {experiment.batch_size}: --steps {steps}"
    return dataclasses.replace(experiment, steps=steps), line


def _check_reopening(experiment: Experiment, allow: Sequence[str], run: pathlib.Path) -> tuple[bool, list[str]]:
    """Return whether the experiment has classes of its own project, and what commands on the run will need.

    Raises UserError where the run could not be opened again, or where a field holds a value of another type.
    """
    encoded = codec.encode(experiment)
    own, others = codec.foreign(encoded, allow, run)
    packages = sorted({name.partition(".")[0].partition(":")[0] for name in others} - set(allow))
    codec.decode(encoded, (*allow, *packages), run)
    return bool(own), [
        f"commands on this run will need --allow {package}, whose classes it has" for package in packages
    ]
