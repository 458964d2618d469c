"""`jaxgen interpolate`: from each sample to the next, as rows of images or an animated GIF."""

import pathlib

import numpy as np
from PIL import Image

from jaxgen.commands import generator
from jaxgen.commands.output import Parser, print_json, writing
from jaxgen.errors import UserError
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.sampling import draw


def run(prog: str, arguments: list[str]) -> None:
    """Interpolate the noise from each of samples 0 … n-1 to the next, and from the last to the first.

    A .png shows a row for each pair; a .gif goes through all of them in a loop.
    """
    parser = Parser(prog, "Go from sample to sample, as rows of images or an animated GIF.").of_run()
    parser.add_argument("--n", type=int, default=6, help="how many samples to go through")
    parser.add_argument("--frames", type=int, default=8, help="images from each sample to the next")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE", help="a .png, or an animated .gif")
    parser.add_argument("--label", type=int, help="the class of all of them; without it, each row keeps its own")
    generator.add_options(parser)
    args = parser.parse_args(arguments)

    use_compilation_cache()
    opened, guide = generator.opened(args)
    generator.check(opened, {"n": args.n, "frames": args.frames}, args.seed, args.label, [args.out])
    # A picture's rows end where the next begin; an animation that did so would stand still for a moment.
    animated = args.out.suffix.lower() == ".gif"
    if animated and len(opened.program.data.element["image"][0]) == 1:
        raise UserError("an animation of single points shows nothing; write the interpolation to a .png")
    share = np.tile(np.linspace(0.0, 1.0, args.frames, endpoint=not animated, dtype=np.float32), args.n)
    numbers = np.repeat(np.arange(args.n, dtype=np.int32), args.frames)
    samples = draw(
        opened.program, opened.state, numbers, args.seed,
        condition=generator.condition(opened, numbers, args.label),
        towards=((numbers + 1) % args.n, share),
        guide=guide,
    )  # fmt: skip
    with writing():
        if animated:
            frames = [Image.fromarray(sheet.samples(one[None], None, ())) for one in samples]
            frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=80, loop=0)
        else:
            sheet.save_png(args.out, sheet.samples(samples, None, opened.classes, columns=args.frames))
    if args.json:
        result = {"n": args.n, "frames": args.frames, "seed": args.seed, "out": str(args.out)}
        return print_json({"step": opened.step, **result, "protocol": opened.program.generative.protocol()})
    print(f"{args.n} interpolations between samples of step {opened.step}, seed {args.seed}  ->  {args.out}")
