"""What the commands that make samples share: the run, its guiding model, and how samples are made."""

import argparse
import dataclasses
import difflib
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgen.commands import prompts
from jaxgen.commands.output import Parser, note
from jaxgen.commands.prompts import Prompts
from jaxgen.config.expression import parse_options
from jaxgen.diffusion.guidance import Guidance
from jaxgen.errors import UserError
from jaxgen.objective import Generative
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore, with_ema
from jaxgen.sampling import Asked, asked, balanced, resized
from jaxgen.state import State

MOST = 2**31 - 1  # samples: their numbers are 32-bit integers


def add_options(parser: Parser) -> None:
    """Add the options that say how samples are made."""
    parser.add_argument("--solver", metavar="VALUE", help="solver of a diffusion model, such as 'Dpm2M()'")
    parser.add_argument("--schedule", metavar="VALUE", help="its sampling schedule, such as 'Rho(steps=10)'")
    parser.add_argument("--guidance", metavar="VALUE", help="a scale, or such as 'ClassifierFree(scale=2)'")
    parser.add_argument("--truncation", type=float, metavar="PSI", help="of a GAN: truer and less varied below 1")
    parser.add_argument("--ema", type=float, metavar="WIDTH", help="relative width of an EMA made of snapshots")
    parser.add_argument("--guide", type=pathlib.Path, metavar="RUN", help="the guiding model, for Autoguidance")


def add_label(parser: Parser) -> None:
    """Add the option that says which classes samples are of."""
    parser.add_argument(
        "--label", action="append", default=[], metavar="CLASS",
        help="a class, by name or number; several, as in 'cat,dog', are for the samples in turn; default: all classes",
    )  # fmt: skip


def add_size(parser: Parser) -> None:
    """Add the option that says how large samples are."""
    parser.add_argument(
        "--size", type=_size, metavar="HxW", help="height and width of samples, if not the data's and the net can"
    )


def opened(args: argparse.Namespace) -> tuple[Restored, State | None]:
    """Open the run, and with --guide the state of the guiding model; change how samples are made as the options say.

    Raises UserError for options that the run's objective does not have.
    """
    folder = RunFolder(args.folder, tuple(args.allow))
    run = restore(folder, args.step, note)
    guide = restore(RunFolder(args.guide, tuple(args.allow)), None, note).state if args.guide else None
    names = ("solver", "schedule", "guidance", "truncation")
    objective = run.program.objective
    texts = {name: getattr(args, name) for name in names}
    if isinstance(objective, Generative):
        texts["guidance"] = _guidance(texts["guidance"], objective)
    options = parse_options(texts)
    if options and not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} has no {', '.join(options)} to choose")
    if isinstance(objective, Generative):
        changed = objective.with_options(options)
        changed.check_sampling(guide=guide is not None)
        run = run.with_experiment(dataclasses.replace(run.experiment, objective=changed))
    if args.ema is not None:
        run = with_ema(run, folder.snapshots, args.ema)
    return run, guide


def _guidance(text: str | None, objective: Generative) -> str | None:
    """Return the guidance as it is parsed: of a scale alone, the run's own with that scale, or else ClassifierFree."""
    try:
        scale = float(text or "")
    except ValueError:
        return text
    own = own_guidance(objective)
    if own is None or "scale" not in {field.name for field in dataclasses.fields(own)}:
        return f"ClassifierFree(scale={scale})"
    return repr(dataclasses.replace(own, scale=scale))


def own_guidance(objective: Generative) -> Any:
    """Return the guidance that samples are made with, or None where the objective has none."""
    return parse_options({"guidance": objective.protocol().get("guidance")}).get("guidance")


def check_negative(run: Restored, negative: str | None) -> None:
    """Raise UserError for a negative prompt where no guidance leads away from it."""
    guidance = own_guidance(run.program.generative)
    if negative is None or (guidance is not None and _looks_at_null(guidance)):
        return
    raise UserError(f"--negative does nothing with {guidance}; add --guidance SCALE, above 1, or drop it")


def _looks_at_null(guidance: Guidance) -> bool:
    """Whether it needs an estimate for no text, for which the negative prompt stands."""
    try:
        guidance.check(conditional=True, droppable=False, guide=True)
    except UserError:
        return True
    return False


def check(run: Restored, sizes: dict[str, int], seed: int) -> None:
    """Raise UserError unless the run can be asked for this; nothing is computed yet."""
    objective = run.program.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} makes no samples; `jaxgen predict` uses it on images")
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"--{name} is {size}; it must be at least 1")
        if size > MOST:
            raise UserError(f"--{name} is more than {MOST:,}, the most that can be")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is {seed}; it must lie in 0..{2**32 - 1}")


def labels(run: Restored, texts: Sequence[str], option: str = "--label") -> list[int]:
    """Return the class ids of names or numbers, each of them one of the texts or, between commas, several.

    A name goes before a number. Raises UserError where the net has no classes, or a text is none of them.
    """
    if texts and "label" not in run.program.generative.conditions():
        raise UserError(f"this run's net is unconditional: it cannot be asked for a class; drop {option}")
    found: list[int] = []
    for text in texts:
        # A name may hold commas itself.
        parts = [text] if text in run.classes else text.split(",")
        found += [_label(part.strip(), run.classes, option) for part in parts if part.strip()]
    if texts and not found:
        raise UserError(f"{option} is empty; name a class, or drop it")
    return found


def _label(text: str, classes: tuple[str, ...], option: str = "--label") -> int:
    same = [k for k, name in enumerate(classes) if name == text]
    same = same or [k for k, name in enumerate(classes) if name.casefold() == text.casefold()]
    if same:
        if text.isdecimal() and int(text) != same[0]:
            note(f"note: {option} {text} is the class named {classes[same[0]]!r}, whose number is {same[0]}")
        return same[0]
    if text.removeprefix("-").isdecimal():
        if 0 <= int(text) < len(classes):
            return int(text)
        raise UserError(f"{option} is {text}; the classes are 0..{len(classes) - 1}: {_listed(classes)}")
    near = difflib.get_close_matches(text.casefold(), [name.casefold() for name in classes], 3)
    named = [name for close in near for name in classes if name.casefold() == close]
    hint = f"perhaps you meant {' or '.join(named)}" if named else f"the classes are {_listed(classes)}"
    raise UserError(f"{option} is {text!r}, which is no class of this run; {hint}")


def _listed(classes: tuple[str, ...]) -> str:
    more = f", … ({len(classes)} in all)" if len(classes) > 20 else ""
    return ", ".join(classes[:20]) + more


def condition(run: Restored, numbers: np.ndarray, given: Sequence[int], said: Prompts) -> tuple[Asked, list[str]]:
    """Return what each sample is asked for, and its text, or [] where there are none.

    Classes and prompts that are given are for the samples in turn; without them it is what `sampling.asked` says.
    """
    result, texts = _texts(run, numbers, said)
    if given:
        result |= {"label": np.asarray(given, np.int32)[numbers % len(given)]}
    if said.negative is not None:
        result |= prompts.tokens(run, [said.negative] * len(numbers), "negative_{}")
    return result, texts


def _texts(run: Restored, numbers: np.ndarray, said: Prompts) -> tuple[Asked, list[str]]:
    known = prompts.tokenizers(run)
    if not said.texts:
        texts = prompts.captions(run, numbers) if known else []
        return asked(run.program, numbers, run.experiment.test.source.open), texts
    names = set(run.program.generative.conditions()) - known.keys()
    texts = said.of(numbers)
    if names - {"label"}:
        result = asked(run.program, numbers, run.experiment.test.source.open)
    else:
        result = {"label": balanced(numbers, len(run.classes))} if names else {}
    return result | prompts.tokens(run, texts), texts


def with_size(run: Restored, size: tuple[int, int] | None) -> Restored:
    """Return the run with samples of another height and width, where its net can make them.

    Raises UserError where it cannot.
    """
    if size is None:
        return run
    height, width = run.program.data.element["image"][0][:2]
    program = resized(run.program, *size)
    if size != (height, width):
        note(f"note: the net was trained on images of {height}×{width}; others may look worse, the more they differ")
    return dataclasses.replace(run, program=program)


def _size(text: str) -> tuple[int, int]:
    """Read a height and a width, 64x96, or one number for both; for `Parser.add_argument`."""
    try:
        sides = [int(side) for side in text.lower().replace("×", "x").split("x")]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write height and width in pixels, such as 64x96")
    return sides[0], sides[-1]
