"""`jaxgen sample`: draw samples of a generative run."""

import pathlib
from typing import Any

import numpy as np

from jaxgen.commands import generator
from jaxgen.commands.output import Parser, print_json, writing
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.sampling import draw


def run(prog: str, arguments: list[str]) -> None:
    """Draw samples 0 … n-1, write a picture of them and, with --npz, their values."""
    parser = Parser(prog, "Draw samples; sample i depends on the seed and on i only.").of_run()
    parser.add_argument("--n", type=int, default=64, help="how many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE.png", help="a picture of them")
    parser.add_argument("--npz", type=pathlib.Path, metavar="FILE.npz", help="their values: samples, and labels if any")
    parser.add_argument("--label", type=int, help="the class of all of them; without it, all classes in turn")
    generator.add_options(parser)
    args = parser.parse_args(arguments)

    use_compilation_cache()
    opened, guide = generator.opened(args)
    generator.check(opened, {"n": args.n}, args.seed, args.label, [args.out, args.npz])
    numbers = np.arange(args.n, dtype=np.int32)
    condition = generator.condition(opened, numbers, args.label)
    samples = draw(opened.program, opened.state, numbers, args.seed, condition=condition, guide=guide)
    labels = condition.get("label")
    with writing():
        sheet.save_png(args.out, sheet.samples(samples, labels, opened.classes))
        if args.npz is not None:
            arrays: dict[str, Any] = {} if labels is None else {"labels": labels}
            np.savez(args.npz, samples=samples, **arrays)
    if args.json:
        protocol = opened.program.generative.protocol()
        return print_json(
            {"step": opened.step, "n": args.n, "seed": args.seed, "out": str(args.out), "protocol": protocol}
        )
    print(f"{args.n} samples of step {opened.step}, seed {args.seed}  ->  {args.out}")
