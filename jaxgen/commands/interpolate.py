"""`jaxgen interpolate`: from each sample to the next, as rows of images or an animated GIF."""

import argparse
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from jaxgen.commands import generator, prompts
from jaxgen.commands.output import Parser, check_file, note, print_json, whole, writing
from jaxgen.commands.prompts import Prompts
from jaxgen.commands.sample_files import Broken, picture
from jaxgen.data.source import portrayed
from jaxgen.errors import UserError
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.runs.restore import Restored
from jaxgen.sampling import Asked, draw

MOST = 4 * sheet.PIXELS  # pixels of all images together


def run(prog: str, arguments: list[str]) -> None:
    """Interpolate the noise from each of samples 0 … n-1 to the next, and from the last to the first.

    With prompts the noise stays, and each sample goes from prompt to prompt. A .gif goes through all of them in a loop;
    a picture of another kind shows a row for each pair.
    """
    parser = Parser(prog, "Go from sample to sample, as rows of images or an animated GIF.").of_run()
    parser.add_argument("--n", type=whole, help="how many samples to go through (6); of each pair of prompts (1)")
    parser.add_argument("--frames", type=whole, default=8, help="images from each sample, or prompt, to the next")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="FILE", help="a picture, or an animated .gif"
    )
    generator.add_size(parser)
    generator.add_label(parser)
    prompts.add_options(parser)
    generator.add_options(parser)
    args = parser.parse_args(arguments)

    check_file(args.out, sheet.FORMATS)
    said = prompts.given(args)

    use_compilation_cache()
    opened, guide = generator.opened(args)
    if args.n is None:
        args.n = 1 if said.texts else 6
    generator.check(opened, {"n": args.n, "frames": args.frames}, args.seed)
    if args.n < 2 and not said.texts:
        raise UserError("--n is 1; there must be at least 2 samples to go between")
    if len(said.texts) == 1:
        raise UserError("there is one prompt; there must be at least 2 to go between: add --prompt TEXT")
    prompts.check(opened, said)
    generator.check_negative(opened, said.negative)
    given = generator.labels(opened, args.label)
    opened = generator.with_size(opened, args.size)
    # A picture's rows end where the next begin; an animation that did so would stand still for a moment.
    animated = args.out.suffix.lower() == ".gif"
    shape, dtype = opened.program.data.element["image"]
    if animated and len(shape) == 1:
        raise UserError("an animation of single points shows nothing; write the interpolation to a .png")
    rows = args.n * max(1, len(said.texts) - (not animated))
    if rows * args.frames * max(sheet.LEAST**2, math.prod(shape[:-1])) > MOST and len(shape) == 3:
        raise UserError(f"{rows} × {args.frames} images are too many for one file; ask for fewer --n or --frames")
    way = _between_prompts(opened, args, said, given) if said.texts else _between_samples(opened, args, said, given)
    samples = draw(
        opened.program, opened.state, way.numbers, args.seed, condition=way.condition, towards=way.towards, guide=guide
    )
    broken = Broken()
    broken.add(samples, None)
    if broken.numbers:
        note(broken.line())
    own = portrayed(opened.experiment.test.source, samples.shape[1:])
    samples = picture(samples, dtype == np.uint8, own)
    with writing():
        if animated:
            frames = [Image.fromarray(sheet.samples(one[None], None, ())) for one in samples]
            frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=80, loop=0)
        else:
            sheet.save(args.out, sheet.samples(samples, None, opened.classes, args.frames, way.words))
    if args.json:
        result = {"n": args.n, "frames": args.frames, "seed": args.seed, "out": str(args.out)}
        result |= {"prompts": list(said.texts)} if said.texts else {}
        return print_json({"step": opened.step, **result, "protocol": opened.program.generative.protocol()})
    what = "prompts" if said.texts else "samples"
    print(f"{args.n} interpolations between {what} of step {opened.step}, seed {args.seed}  ->  {args.out}")


@dataclasses.dataclass(frozen=True)
class _Way:
    """What each image is drawn from: arguments of `sampling.draw`, and the text below it."""

    numbers: np.ndarray
    condition: Asked
    towards: tuple[np.ndarray, np.ndarray] | None = None
    words: tuple[str, ...] = ()


def _between_samples(opened: Restored, args: argparse.Namespace, said: Prompts, given: Sequence[int]) -> _Way:
    """The noise goes from each sample to the next."""
    share, numbers = _shares(args, args.n), np.repeat(np.arange(args.n, dtype=np.int32), args.frames)
    condition, _ = generator.condition(opened, numbers, given, said)
    return _Way(numbers, condition, ((numbers + 1) % args.n, share))


def _between_prompts(opened: Restored, args: argparse.Namespace, said: Prompts, given: Sequence[int]) -> _Way:
    """The noise of a sample stays, and its text goes from each prompt to the next; in a loop back to the first."""
    texts = [*said.texts, *(said.texts[:1] if args.out.suffix.lower() == ".gif" else ())]
    pairs = list(itertools.pairwise(texts)) * args.n
    share = _shares(args, len(pairs))
    numbers = np.repeat(np.arange(args.n, dtype=np.int32), len(share) // args.n)
    begin, end = ([pair[side] for pair in pairs for _ in range(args.frames)] for side in (0, 1))
    condition, _ = generator.condition(opened, numbers, given, said)
    condition |= {**prompts.tokens(opened, begin), **prompts.tokens(opened, end, "{}_to"), "share": share}
    words = [(*pair[:1], *[""] * (args.frames - 2), *pair[1:])[: args.frames] for pair in pairs]
    return _Way(numbers, condition, words=tuple(itertools.chain.from_iterable(words)))


def _shares(args: argparse.Namespace, rows: int) -> np.ndarray:
    """How far each image of each row is on its way, f32[rows frames] flat."""
    animated = args.out.suffix.lower() == ".gif"
    return np.tile(np.linspace(0.0, 1.0, args.frames, endpoint=not animated, dtype=np.float32), rows)
