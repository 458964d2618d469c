"""What `jaxgen restore` is told of how pictures were damaged: its options, and what they may be."""

import argparse
import dataclasses
import math
import pathlib

from jaxgen.commands.output import Parser, shown
from jaxgen.data.masks import MASKS
from jaxgen.errors import UserError
from jaxgen.restoration.separable import AverageDown, BicubicDown

OPTIONS = ("mask", "factor", "kernel", "sigma", "length", "angle", "border", "quality", "levels", "noise", "fade")
KERNELS: dict[str, type] = {"average": AverageDown, "bicubic": BicubicDown}
BORDERS = ("mirror", "wrap")


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of damage, as it is asked for."""

    needs: tuple[str, ...]
    takes: tuple[str, ...]
    """Options that may also be given."""
    noise: float
    """The noise where none is given, for pixels in 0..1."""


# Of the linear ones: twice the rounding of a file to 8 bits would be 0.0023; JPEG and cameras leave more.
TASKS = {
    "inpaint": Task(("mask",), ("noise",), 0.01),
    "sr": Task(("factor",), ("kernel", "noise"), 0.01),
    "deblur": Task(("sigma",), ("border", "noise"), 0.02),
    "motion": Task(("length",), ("angle", "border", "noise"), 0.02),
    "denoise": Task((), ("sigma",), 0.0),
    "jpeg": Task((), ("quality",), 0.0),
    "quantise": Task(("levels",), (), 0.0),
    "colourise": Task((), ("noise",), 0.01),
    "old": Task((), ("mask", "fade", "sigma", "border", "noise"), 0.05),
}


def add_options(parser: Parser) -> None:
    """Add the options that say what the damage is."""
    parser.add_argument("--task", required=True, choices=[*TASKS], help="what happened to the pictures")
    parser.add_argument(
        "--mask", metavar="FILE|" + "|".join(MASKS),
        help="inpaint, old: a picture of the same size, white where something is to be made up and black elsewhere; or "
        "holes that the seed draws: a box of a quarter of the picture, half of all pixels, strokes over a quarter",
    )  # fmt: skip
    parser.add_argument("--factor", type=int, metavar="N", help="sr: how many times larger the sides become")
    parser.add_argument("--kernel", choices=[*KERNELS], help="sr: how it was made small (average)")
    parser.add_argument(
        "--sigma", type=float, metavar="S",
        help="deblur, old: width of the Gaussian blur in pixels; denoise: standard deviation of the noise, for pixels "
        "from 0 to 1 (of 255 levels, divide by 255), estimated from each picture where it is not given",
    )  # fmt: skip
    parser.add_argument("--length", type=float, metavar="L", help="motion: of the line that blurred it, in pixels")
    parser.add_argument(
        "--angle", type=float, metavar="A", help="motion: of that line, in degrees; 90 is upright, 45 rises (0)"
    )
    parser.add_argument(
        "--border", choices=BORDERS, help="deblur, motion, old: what came in from beyond the picture (mirror)"
    )
    parser.add_argument(
        "--quality", type=float, metavar="Q", help="jpeg: 1 to 100; a .jpg says it itself, by its tables"
    )
    parser.add_argument("--levels", type=int, metavar="N", help="quantise: how many values a channel has left")
    parser.add_argument(
        "--noise", type=float, metavar="S",
        help="standard deviation of the noise that the pictures also have, for pixels from 0 to 1 "
        f"({', '.join(f'{name} {task.noise:g}' for name, task in TASKS.items() if 'noise' in task.takes)})",
    )  # fmt: skip
    parser.add_argument(
        "--fade", type=float, nargs=2, metavar=("A", "B"), help="old: a pixel x from 0 to 1 has faded to A x + B"
    )
    parser.add_argument(
        "--try", dest="trial", action="store_true",
        help="the pictures are whole: damage them first, so that what is restored can be held against the truth",
    )  # fmt: skip


def check(args: argparse.Namespace) -> None:
    """Raise UserError where an option is missing, is of another task, or out of its range."""
    task = TASKS[args.task]
    given = [name for name in OPTIONS if getattr(args, name) is not None]
    if missing := [name for name in task.needs if name not in given]:
        raise UserError(f"--task {args.task} needs --{missing[0]}")
    if other := [name for name in given if name not in task.needs + task.takes]:
        fitting = " and ".join(name for name, each in TASKS.items() if other[0] in each.needs + each.takes)
        raise UserError(f"--{other[0]} is for {fitting}, not for {args.task}; drop it")
    if args.task == "old" and not {"mask", "fade", "sigma", "noise"}.intersection(given):
        raise UserError("--task old needs to know what age did: add --mask, --fade, --sigma or --noise")
    for name in {"denoise": ("sigma",), "jpeg": ("quality",)}.get(args.task, ()) if args.trial else ():
        if name not in given:
            raise UserError(f"--try needs --{name}: how much damage it is to do")
    if args.task == "jpeg" and args.resize and not args.trial:
        raise UserError("--resize would mix the blocks of a JPEG, by which it is restored; drop it")
    _check_ranges(args)
    if args.mask is not None and args.mask not in MASKS and not pathlib.Path(args.mask).is_file():
        raise UserError(f"there is no mask {shown(pathlib.Path(args.mask))}; name a file, or {' or '.join(MASKS)}")


def _check_ranges(args: argparse.Namespace) -> None:
    _check_noise("noise", args.noise)
    if args.task == "denoise":
        _check_noise("sigma", args.sigma)
    elif args.sigma is not None and not args.sigma > 0:
        raise UserError(f"--sigma is {args.sigma:g}; the blur's width is a number of pixels above 0")
    if args.factor is not None and args.factor < 2:
        raise UserError(f"--factor is {args.factor}; it must be 2 or more")
    if args.length is not None and not 1 <= args.length < math.inf:
        raise UserError(f"--length is {args.length:g}; it is a number of pixels, 1 or more")
    if args.angle is not None and not -360 <= args.angle <= 360:
        raise UserError(f"--angle is {args.angle:g}; it is a number of degrees, at most 360")
    if args.quality is not None and not (args.quality.is_integer() and 1 <= args.quality <= 100):
        share = f"; of 0 to 1 that is {100 * args.quality:.0f}" if 0 < args.quality < 1 else ""
        raise UserError(f"--quality is {args.quality:g}; JPEG's is a whole number from 1 to 100{share}")
    if args.levels is not None and not 2 <= args.levels <= 255:
        raise UserError(f"--levels is {args.levels}; a channel has 2 to 255 values left, of 256")
    if args.fade is not None and not (0 < args.fade[0] <= 2 and -1 <= args.fade[1] <= 1):
        raise UserError(f"--fade is {args.fade[0]:g} {args.fade[1]:g}; A lies above 0, up to 2, and B in -1..1")


def _check_noise(name: str, value: float | None) -> None:
    if value is None or 0 < value <= 1:
        return
    unit = f"; of 255 levels that is {value / 255:.3g}" if 1 < value <= 255 else ""
    raise UserError(f"--{name} is {value:g}; it is the noise's deviation for pixels from 0 to 1, above 0{unit}")
