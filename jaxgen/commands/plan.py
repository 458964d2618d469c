"""`jaxgen plan`: compile a config's train step for devices that are not here."""

import argparse
import pathlib

from jaxgen.commands.output import Parser, check_file, note, print_json
from jaxgen.config import files, overrides
from jaxgen.data.batches import DataSpec
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel import rules
from jaxgen.plan import fake_data, planner, scaling, text, topologies
from jaxgen.plan.topologies import Topology
from jaxgen.program import Program


def run(prog: str, arguments: list[str]) -> None:
    """Print what a run would need, and how fast it could be."""
    parser = Parser(prog, "Compile the train step for devices that are not here: memory, speed.").with_json()
    parser.add_argument("config", type=pathlib.Path, metavar="CONFIG", help="any of its fields follow, as for train.py")
    parser.add_argument("--topology", help="such as v5e:4x4, v5p:8x8x8, v6e:16x16, or cpu:256 for fake devices")
    parser.add_argument("--sample", action="store_true", help="plan the drawing of samples too")
    parser.add_argument(
        "--search", action="store_true", help="find the largest batch that fits, and what would fit more"
    )
    parser.add_argument("--scale", metavar="A,B,…", help="topologies to compare, in the place of --topology")
    parser.add_argument("--batch-per-chip", type=int, help="with --scale: let the batch grow with the chips")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.png", help="with --scale: a picture of it")
    parser.add_argument(
        "--thorough", action="store_true", help="optimize long programs fully, which takes minutes more"
    )
    parser.add_argument("--table", action="store_true", help="say where each array of the state lies")
    parser.add_argument("--image", type=size, metavar="HxWxC", help="the images' size, where nothing tells it")
    args, fields = parser.parse_known_args(arguments)
    if not (args.topology or args.scale):
        raise UserError("say where: --topology v5e:4x4, --topology cpu:16, or --scale v5e:4x4,v5e:8x8")
    check_file(args.out, (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"))
    experiment = overrides.override(files.load(args.config), fields, prog=f"{prog} {args.config}")
    names = args.scale.split(",") if args.scale else [args.topology]
    places = [topologies.topology(name, experiment.mesh.slices) for name in names]
    experiment, origin = fake_data.with_data(experiment, args.image)
    data = DataSpec.of(experiment.train.source.open(), experiment.train.transforms)
    if args.scale:
        return _scale(args, experiment, data, places, origin)
    (where,) = places
    if not any(field.startswith("--batch-size") for field in fields):  # one that was asked for is kept
        experiment, notes = planner.dividing(experiment, where)
        for line in notes:
            note(line)
    _plan(args, experiment, data, where, origin)


def _scale(
    args: argparse.Namespace, experiment: Experiment, data: DataSpec, places: list[Topology], origin: str
) -> None:
    rows = scaling.scale(experiment, data, places, args.batch_per_chip, note)
    if args.out:
        text.draw(rows, f"{args.config.parent.name}/{args.config.stem}").savefig(args.out, dpi=120)
    if args.json:
        return print_json({"rows": rows, "data": origin})
    print(*text.table(rows), sep="\n")


def _plan(args: argparse.Namespace, experiment: Experiment, data: DataSpec, where: Topology, origin: str) -> None:
    """Print each part as soon as it is known, or with --json all at the end."""
    say = note if args.json else print
    if args.table:
        say("\n".join(rules.table(Program.of(experiment, data, where.devices).shapes)))
    report = planner.plan(experiment, data, where, thorough=args.thorough) | {"data": origin}
    if not args.json:
        print(*text.lines(report), sep="\n")
    if args.sample:
        report["sample"] = planner.plan_sampling(experiment, data, where)
        if not args.json:
            print("sampling", *text.sampling_lines(report["sample"]), sep="\n")
    if args.search:
        report["search"] = scaling.search(experiment, data, where, say)
        if not args.json:
            print(f"largest batch that fits: {report['search']['largest_batch']}")
    if args.json:
        print_json(report)


def size(words: str) -> tuple[int, int, int]:
    """Read an image's height, width and channels from 256x256x3."""
    height, width, channels = (int(n) for n in words.split("x"))
    return height, width, channels
