"""`jaxgen sample --image`: a picture changed, or followed to its noise and made again."""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxgen import editing
from jaxgen.commands import generator, prompts
from jaxgen.commands.output import Parser, note, shown
from jaxgen.commands.prompts import Prompts
from jaxgen.data.augment import Resize
from jaxgen.data.decode import read_image
from jaxgen.data.frame import prepared
from jaxgen.data.tokenizers import Tokenize
from jaxgen.diffusion.editing import level
from jaxgen.errors import UserError
from jaxgen.runs.restore import Restored
from jaxgen.sampling import Asked
from jaxgen.state import State


def add_options(parser: Parser) -> None:
    """Add the options that start samples from a picture."""
    parser.add_argument("--image", type=pathlib.Path, metavar="FILE", help="a picture to start from")
    parser.add_argument(
        "--strength", type=float, metavar="S",
        help="how much of --image is noise at the start, 0..1: S of noise to 1-S of the picture, which is noise level "
        "S/(1-S) with any solver and schedule; 0 gives the picture itself, 1 plain samples",
    )  # fmt: skip
    parser.add_argument(
        "--invert", action="store_true", help="follow --image to the noise that it comes from, and make it again"
    )
    parser.add_argument("--shows", metavar="TEXT|CLASS", help="what --image shows, for --invert; default: no text")


def check(args: argparse.Namespace) -> None:
    """Raise UserError where these options do not go together."""
    for name, is_there in (("strength", args.strength is not None), ("invert", args.invert)):
        if is_there and args.image is None:
            raise UserError(f"--{name} is for a picture: add --image FILE")
    if args.shows is not None and not args.invert:
        raise UserError("--shows is for --invert; add it, or say with --prompt or --label what to make")
    if args.image is None:
        return
    if (args.strength is None) != args.invert:
        raise UserError("--image needs one of --strength S, from 0 (the picture) to 1 (noise), and --invert")
    if args.strength is not None:
        level(args.strength)


def read(run: Restored, path: pathlib.Path) -> np.ndarray:
    """Return a picture f32[h w c] in [-1, 1] as the net takes it: prepared as test images are, at the samples' size.

    Raises UserError for a run that was not trained on pictures, and for a file that is none.
    """
    editing.editable(run.program)
    shape, dtype = run.program.data.element["image"]
    if len(shape) != 3 or dtype != np.uint8:
        raise UserError(f"this run was trained on {dtype} arrays of shape {shape}, not on pictures; drop --image")
    name = shown(path)
    if not path.is_file():
        raise UserError(f"there is no image {name}; name a picture file")
    transforms = [each for each in run.experiment.test.transforms if not isinstance(each, Tokenize)]
    pixels = read_image(path, shape[-1], name)
    image = prepared(pixels, transforms).image
    if image.shape != shape:
        image = prepared(pixels, (*transforms, Resize(*shape[:2]))).image
        note(f"note: {name} is brought to {shape[0]}×{shape[1]}, the size of samples")
    return image.astype(np.float32) / 127.5 - 1


def shows(run: Restored, text: str | None, condition: Asked) -> Asked:
    """Return what the picture is inverted for: the text or class that it shows, or else no text.

    Raises UserError where the net has classes and none is named.
    """
    count = len(next(iter(condition.values()))) if condition else 0
    if prompts.tokenizers(run):
        return condition | prompts.tokens(run, [text or ""] * count)
    if "label" in condition:
        if text is None:
            raise UserError("--invert needs to know what the picture shows: add --shows CLASS")
        return condition | {"label": np.full(count, generator.labels(run, [text], "--shows")[0], np.int32)}
    if text is not None:
        raise UserError("this run's net is asked for nothing; drop --shows")
    return condition


def target(run: Restored, args: argparse.Namespace, said: Prompts) -> Prompts:
    """Return the prompts for a picture: where none is given what it shows, or no text, as test captions do not fit."""
    if args.image is None or said.texts or not prompts.tokenizers(run):
        return said
    return dataclasses.replace(said, texts=(args.shows or "",))


def drawn(
    args: argparse.Namespace, run: Restored, guide: State | None, numbers: np.ndarray, condition: Asked
) -> Iterator[np.ndarray]:
    """Yield what is made of the picture, once for each number, in batches."""
    image = read(run, args.image)
    if not args.invert:
        return editing.edit(
            run.program, run.state, image, numbers, args.seed, strength=args.strength, condition=condition, guide=guide
        )
    own = shows(run, args.shows, condition)
    return editing.again(run.program, run.state, image, numbers, args.seed, shows=own, condition=condition, guide=guide)
