"""What the commands that make samples share: the run, its guiding model, and how samples are made."""

import argparse
import dataclasses
import pathlib

import numpy as np

from jaxgen.commands.output import Parser, check_folder, note
from jaxgen.config.expression import parse_options
from jaxgen.errors import UserError
from jaxgen.objective import Generative
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore, with_ema
from jaxgen.sampling import Asked, asked
from jaxgen.state import State


def add_options(parser: Parser) -> None:
    """Add the options that say how samples are made."""
    parser.add_argument("--solver", metavar="VALUE", help="solver of a diffusion model, such as 'Dpm2M()'")
    parser.add_argument("--schedule", metavar="VALUE", help="its sampling schedule, such as 'Rho(steps=10)'")
    parser.add_argument("--guidance", metavar="VALUE", help="such as 'ClassifierFree(scale=2)'")
    parser.add_argument("--truncation", type=float, metavar="PSI", help="of a GAN: truer and less varied below 1")
    parser.add_argument("--ema", type=float, metavar="WIDTH", help="relative width of an EMA made of snapshots")
    parser.add_argument("--guide", type=pathlib.Path, metavar="RUN", help="the guiding model, for Autoguidance")


def opened(args: argparse.Namespace) -> tuple[Restored, State | None]:
    """Open the run, and with --guide the state of the guiding model; change how samples are made as the options say.

    Raises UserError for options that the run's objective does not have.
    """
    folder = RunFolder(args.folder, tuple(args.allow))
    run = restore(folder, args.step, note)
    guide = restore(RunFolder(args.guide, tuple(args.allow)), None, note).state if args.guide else None
    names = ("solver", "schedule", "guidance", "truncation")
    options = parse_options({name: getattr(args, name) for name in names})
    objective = run.program.objective
    if options and not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} has no {', '.join(options)} to choose")
    if isinstance(objective, Generative):
        changed = objective.with_options(options)
        changed.check_sampling(guide=guide is not None)
        run = run.with_experiment(dataclasses.replace(run.experiment, objective=changed))
    if args.ema is not None:
        run = with_ema(run, folder.snapshots, args.ema)
    return run, guide


def check(run: Restored, sizes: dict[str, int], seed: int, label: int | None, paths: list[pathlib.Path | None]) -> None:
    """Raise UserError unless the run can be asked for this and the files can be written; nothing is computed yet."""
    objective = run.program.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} makes no samples; `jaxgen predict` uses it on images")
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"--{name} is {size}; it must be at least 1")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is {seed}; it must lie in 0..{2**32 - 1}")
    if label is not None and "label" not in objective.conditions():
        raise UserError("this run's net is unconditional: it cannot be asked for a class; drop --label")
    if label is not None and not 0 <= label < len(run.classes):
        raise UserError(f"--label is {label}; the classes are 0..{len(run.classes) - 1}: {', '.join(run.classes)}")
    for path in paths:
        check_folder(path)


def condition(run: Restored, numbers: np.ndarray, label: int | None) -> Asked:
    """Return what each sample is asked for: the class that is given, or what `sampling.asked` says."""
    result = asked(run.program, numbers, run.experiment.test.source.open)
    return result if label is None else result | {"label": np.full(len(numbers), label, np.int32)}
