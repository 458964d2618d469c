"""What `jaxgen restore` is told of how pictures were damaged: its options, and the damage that they name."""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np

from jaxgen.commands.output import Parser, shown
from jaxgen.data.decode import read_image
from jaxgen.errors import UserError
from jaxgen.restoration.damage import Damage, old_photograph
from jaxgen.restoration.operators import Grey, Mask, Operator
from jaxgen.restoration.separable import AverageDown, BicubicDown, Blur

Shape = tuple[int, ...]  # of the pictures that the net makes: height, width, channels

HOLE = 128  # grey of a mask from which on it is a hole
OPTIONS = ("mask", "factor", "kernel", "sigma", "noise", "fade")
KERNELS: dict[str, type] = {"average": AverageDown, "bicubic": BicubicDown}


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of damage, as it is asked for."""

    says: str
    """What is restored, in a few words."""
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    """Options that may also be given."""
    noise: float
    """The noise where none is given, for pixels in 0..1."""


# Of the linear ones: twice the rounding of a file to 8 bits would be 0.0023; JPEG and cameras leave more.
TASKS = {
    "inpaint": Task("holes", ("mask",), ("noise",), 0.01),
    "sr": Task("a small picture", ("factor",), ("kernel", "noise"), 0.01),
    "deblur": Task("a blurred picture", ("sigma",), ("noise",), 0.02),
    "denoise": Task("a noisy picture", ("sigma",), (), 0.0),
    "colourise": Task("a grey picture", (), ("noise",), 0.01),
    "old": Task("an old photograph", (), ("mask", "fade", "sigma", "noise"), 0.05),
}


def add_options(parser: Parser) -> None:
    """Add the options that say what the damage is."""
    parser.add_argument("--task", required=True, choices=[*TASKS], help="what happened to the pictures")
    parser.add_argument(
        "--mask", type=pathlib.Path, metavar="FILE",
        help="inpaint, old: a picture of the same size, white where something is to be made up and black elsewhere",
    )  # fmt: skip
    parser.add_argument("--factor", type=int, metavar="N", help="sr: how many times larger the sides become")
    parser.add_argument("--kernel", choices=[*KERNELS], help="sr: how it was made small (average)")
    parser.add_argument(
        "--sigma", type=float, metavar="S",
        help="deblur, old: width of the Gaussian blur in pixels; denoise: standard deviation of the noise, for pixels "
        "from 0 to 1 (of 255 levels, divide by 255)",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=float, metavar="S",
        help="standard deviation of the noise that the pictures also have, for pixels from 0 to 1 "
        f"({', '.join(f'{name} {task.noise:g}' for name, task in TASKS.items() if 'noise' in task.takes)})",
    )  # fmt: skip
    parser.add_argument(
        "--fade", type=float, nargs=2, metavar=("A", "B"), help="old: a pixel x from 0 to 1 has faded to A x + B"
    )


def check(args: argparse.Namespace) -> None:
    """Raise UserError where an option is missing, is of another task, or out of its range."""
    task = TASKS[args.task]
    given = [name for name in OPTIONS if getattr(args, name) is not None]
    if missing := [name for name in task.needs if name not in given]:
        raise UserError(f"--task {args.task} needs --{missing[0]}")
    if other := [name for name in given if name not in task.needs + task.takes]:
        fitting = " and ".join(name for name, each in TASKS.items() if other[0] in each.needs + each.takes)
        raise UserError(f"--{other[0]} is for {fitting}, not for {args.task}; drop it")
    if args.task == "old" and not given:
        raise UserError("--task old needs to know what age did: add --mask, --fade, --sigma or --noise")
    _check_range("noise", args.noise)
    if args.task == "denoise":
        _check_range("sigma", args.sigma)
    elif args.sigma is not None and not args.sigma > 0:
        raise UserError(f"--sigma is {args.sigma:g}; the blur's width is a number of pixels above 0")
    if args.factor is not None and args.factor < 2:
        raise UserError(f"--factor is {args.factor}; it must be 2 or more")
    if args.fade is not None and not (0 < args.fade[0] <= 2 and -1 <= args.fade[1] <= 1):
        raise UserError(f"--fade is {args.fade[0]:g} {args.fade[1]:g}; A lies above 0, up to 2, and B in -1..1")
    if args.mask is not None and not args.mask.is_file():
        raise UserError(f"there is no mask {shown(args.mask)}; name a picture file")


def _check_range(name: str, value: float | None) -> None:
    if value is None or 0 < value <= 1:
        return
    unit = f"; of 255 levels that is {value / 255:.3g}" if 1 < value <= 255 else ""
    raise UserError(f"--{name} is {value:g}; it is the noise's deviation for pixels from 0 to 1, above 0{unit}")


def damage_of(args: argparse.Namespace) -> Callable[[Shape], Damage]:
    """Read the mask, and return what gives the damage for pictures of a shape.

    It raises UserError where such pictures cannot be damaged so.
    """
    noise = TASKS[args.task].noise if args.noise is None else args.noise
    noise = args.sigma if args.task == "denoise" else noise
    holes = None if args.mask is None else _holes(args)

    def made(shape: Shape) -> Damage:
        keep = None if holes is None else _keep(holes, shape, shown(args.mask))
        if args.task == "old":
            gain, lift = args.fade or (1.0, 0.0)
            damage = old_photograph(keep, gain=gain, lift=lift, blur=args.sigma or 0.0, noise=noise)
        else:
            damage = Damage(operator=_operator(args, keep, shape), noise=2 * noise)
        damage.operator.measures(shape)
        return damage

    return made


def _operator(args: argparse.Namespace, keep: np.ndarray | None, shape: Shape) -> Operator:
    match args.task:
        case "denoise":
            return Mask(keep=np.ones((1, *shape), np.float32))
        case "inpaint":
            return Mask(keep=keep)
        case "sr":
            return KERNELS[args.kernel or "average"](factor=args.factor)
        case "deblur":
            return Blur(sigma=args.sigma)
        case _:
            return Grey()


def _holes(args: argparse.Namespace) -> np.ndarray:
    """Return where the mask is white, bool[h w]. Raises UserError where it is so nowhere."""
    holes = read_image(args.mask, 1, shown(args.mask))[:, :, 0] >= HOLE
    if not holes.any():
        raise UserError(f"the mask {shown(args.mask)} is black all over; draw white what is to be made up")
    return holes


def _keep(holes: np.ndarray, shape: Shape, name: str) -> np.ndarray:
    """Return 1 for what is kept of pictures, f32[1 h w c]. Raises UserError for a mask of another size than theirs."""
    if holes.shape != shape[:2]:
        there, wanted = ("×".join(map(str, sides)) for sides in (holes.shape, shape[:2]))
        raise UserError(f"the mask {name} is {there}, and the pictures are {wanted}; draw it at their size")
    return np.broadcast_to(~holes[None, :, :, None], (1, *shape)).astype(np.float32)
