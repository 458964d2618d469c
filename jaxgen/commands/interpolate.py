"""`jaxgen interpolate`: from each sample to the next, as rows of images or an animated GIF."""

import math
import pathlib

import numpy as np
from PIL import Image

from jaxgen.commands import generator
from jaxgen.commands.output import Parser, check_file, note, print_json, whole, writing
from jaxgen.commands.sample_files import Broken, picture
from jaxgen.errors import UserError
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.sampling import draw

MOST = 4 * sheet.PIXELS  # pixels of all images together


def run(prog: str, arguments: list[str]) -> None:
    """Interpolate the noise from each of samples 0 … n-1 to the next, and from the last to the first.

    A .gif goes through all of them in a loop; a picture of another kind shows a row for each pair.
    """
    parser = Parser(prog, "Go from sample to sample, as rows of images or an animated GIF.").of_run()
    parser.add_argument("--n", type=whole, default=6, help="how many samples to go through")
    parser.add_argument("--frames", type=whole, default=8, help="images from each sample to the next")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="FILE", help="a picture, or an animated .gif"
    )
    generator.add_size(parser)
    generator.add_label(parser)
    generator.add_options(parser)
    args = parser.parse_args(arguments)

    check_file(args.out, sheet.FORMATS)

    use_compilation_cache()
    opened, guide = generator.opened(args)
    generator.check(opened, {"n": args.n, "frames": args.frames}, args.seed)
    if args.n < 2:
        raise UserError("--n is 1; there must be at least 2 samples to go between")
    given = generator.labels(opened, args.label)
    opened = generator.with_size(opened, args.size)
    # A picture's rows end where the next begin; an animation that did so would stand still for a moment.
    animated = args.out.suffix.lower() == ".gif"
    shape, dtype = opened.program.data.element["image"]
    if animated and len(shape) == 1:
        raise UserError("an animation of single points shows nothing; write the interpolation to a .png")
    if args.n * args.frames * max(sheet.LEAST**2, math.prod(shape[:-1])) > MOST and len(shape) == 3:
        raise UserError(f"{args.n} × {args.frames} images are too many for one file; ask for fewer --n or --frames")
    share = np.tile(np.linspace(0.0, 1.0, args.frames, endpoint=not animated, dtype=np.float32), args.n)
    numbers = np.repeat(np.arange(args.n, dtype=np.int32), args.frames)
    samples = draw(
        opened.program, opened.state, numbers, args.seed,
        condition=generator.condition(opened, numbers, given),
        towards=((numbers + 1) % args.n, share),
        guide=guide,
    )  # fmt: skip
    broken = Broken()
    broken.add(samples, None)
    if broken.numbers:
        note(broken.line())
    samples = picture(samples, alpha=dtype == np.uint8)
    with writing():
        if animated:
            frames = [Image.fromarray(sheet.samples(one[None], None, ())) for one in samples]
            frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=80, loop=0)
        else:
            sheet.save(args.out, sheet.samples(samples, None, opened.classes, columns=args.frames))
    if args.json:
        result = {"n": args.n, "frames": args.frames, "seed": args.seed, "out": str(args.out)}
        return print_json({"step": opened.step, **result, "protocol": opened.program.generative.protocol()})
    print(f"{args.n} interpolations between samples of step {opened.step}, seed {args.seed}  ->  {args.out}")
