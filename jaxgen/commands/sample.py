"""`jaxgen sample`: draw samples of a generative run."""

import argparse
import contextlib
import math
import pathlib
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from jaxgen.commands import editing, generator, prompts, sample_files
from jaxgen.commands.output import (
    Parser,
    check_file,
    check_new_folder,
    check_space,
    note,
    print_json,
    whole,
    writing,
)  # fmt: skip
from jaxgen.data.source import portrayed
from jaxgen.errors import UserError
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.progress import Line, counted
from jaxgen.runs.restore import Restored
from jaxgen.sampling import draw_batches


def run(prog: str, arguments: list[str]) -> None:
    """Draw samples 0 … n-1, and write a picture of them, their values, or a file for each."""
    parser = Parser(prog, "Draw samples; sample i depends on the seed and on i only.").of_run()
    parser.add_argument("--n", type=whole, help="how many; default: one for each prompt, or 64, or 1 of an --image")
    parser.add_argument("--seed", type=whole, default=0)
    parser.add_argument(
        "--out", type=pathlib.Path, metavar="FILE.png", help=f"a picture of them, of the first {sheet.SHOWN} at most"
    )
    parser.add_argument(
        "--npz", type=pathlib.Path, metavar="FILE.npz", help="their values: samples, and labels and prompts"
    )
    parser.add_argument("--dir", type=pathlib.Path, metavar="DIR", help="a new folder, for a PNG of each")
    parser.add_argument("--columns", type=whole, help="samples in a row of the picture")
    generator.add_size(parser)
    generator.add_label(parser)
    prompts.add_options(parser)
    editing.add_options(parser)
    generator.add_options(parser)
    args = parser.parse_args(arguments)
    _check_places(args)
    editing.check(args)
    said = prompts.given(args)

    use_compilation_cache()
    opened, guide = generator.opened(args)
    if args.n is None:
        args.n = len(said.texts) or (64 if args.image is None else max(1, len(args.label)))
    generator.check(opened, {"n": args.n, **({} if args.columns is None else {"columns": args.columns})}, args.seed)
    given = _given(opened, args, said)
    opened = generator.with_size(opened, args.size)
    shape, dtype = opened.program.data.element["image"]
    alpha = dtype == np.uint8  # latents have channels of other kinds
    if args.dir is not None:
        sample_files.check_folder_of(shape, alpha, portrayed(opened.experiment.test.source, shape))
    check_space(args.npz, args.n * math.prod(shape) * 4)

    numbers = np.arange(args.n, dtype=np.int32)
    condition, texts = generator.condition(opened, numbers, given, editing.target(opened, args, said))
    if args.image is None:
        batches = draw_batches(opened.program, opened.state, numbers, args.seed, condition=condition, guide=guide)
    else:
        batches = editing.drawn(args, opened, guide, numbers, condition)
    with Line(sys.stderr) as line, writing():
        heard = counted(batches, line.hear, "samples", args.n)
        broken = _written(args, opened, heard, condition.get("label"), texts)
    if broken.numbers:
        note(broken.line())
    _report(args, opened, broken, texts)


def _given(run: Restored, args: argparse.Namespace, said: prompts.Prompts) -> list[int]:
    """Return the class ids that are given. Raises UserError for what the run cannot be asked for."""
    read = prompts.tokenizers(run)
    prompts.check(run, said, args.shows if read else None)
    generator.check_negative(run, said.negative)
    if args.label or read or args.shows is None:
        return generator.labels(run, args.label)
    return generator.labels(run, [args.shows], "--shows")


def _check_places(args: argparse.Namespace) -> None:
    """Raise UserError unless there is somewhere to put samples."""
    if args.out is None and args.npz is None and args.dir is None:
        raise UserError("say where samples go: --out FILE.png (a picture), --dir DIR (a PNG of each), --npz FILE.npz")
    check_file(args.out, sheet.FORMATS)
    check_file(args.npz, (".npz",))
    check_new_folder(args.dir)


def _written(
    args: argparse.Namespace,
    opened: Restored,
    batches: Iterable[np.ndarray],
    labels: np.ndarray | None,
    texts: Sequence[str],
) -> sample_files.Broken:
    """Write samples as they come."""
    shape, dtype = opened.program.data.element["image"]
    alpha, broken = dtype == np.uint8, sample_files.Broken()
    own = portrayed(opened.experiment.test.source, shape)
    places: list[sample_files.Samples] = [broken]
    if args.npz is not None:
        places.append(sample_files.Npz(args.npz, args.n, shape, texts))
    if args.dir is not None:
        places.append(sample_files.Folder(args.dir, args.n, opened.classes, alpha, own, texts))
    if args.out is not None:
        shown = sheet.most(args.n, *shape[:2]) if len(shape) == 3 else args.n
        if shown < args.n:
            note(f"note: {args.out} shows the first {shown} samples; --dir writes a file for each")
        places.append(sample_files.Sheet(args.out, shown, opened.classes, args.columns, alpha, own, texts))
    begin = 0
    with contextlib.ExitStack() as stack:
        for place in places:
            stack.callback(place.drop)
        for samples in batches:
            end = begin + len(samples)
            for place in places:
                place.add(samples, None if labels is None else labels[begin:end])
            begin = end
        for place in places:
            place.close()
    return broken


def _report(args: argparse.Namespace, opened: Restored, broken: sample_files.Broken, texts: Sequence[str]) -> None:
    if args.json:
        height_width = opened.program.data.element["image"][0][:-1]
        result = {name: None if getattr(args, name) is None else str(getattr(args, name)) for name in ("npz", "dir")}
        more = {"prompts": list(texts)} if texts else {}
        more |= {} if args.negative is None else {"negative": args.negative}
        started = {"image": str(args.image), "strength": args.strength, "inverted": args.invert}
        return print_json(
            {
                "step": opened.step, "n": args.n, "seed": args.seed,
                "out": None if args.out is None else str(args.out), **result, "size": list(height_width),
                "not_finite": len(broken.numbers), "protocol": opened.program.generative.protocol(),
                **more, **({} if args.image is None else started),
            }
        )  # fmt: skip
    where = "  ".join(str(path) for path in (args.out, args.npz, args.dir) if path is not None)
    print(f"{args.n} samples of step {opened.step}, seed {args.seed}  ->  {where}")
