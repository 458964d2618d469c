"""`jaxgen prepare`: let a config's frozen nets see each example once, and keep what they make of it."""

import itertools
import math
import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from jaxgen.commands.output import Parser, check_new_folder, check_space, in_words, note, print_json
from jaxgen.config import files, overrides
from jaxgen.data import batches, prepared
from jaxgen.data.batches import Pipeline
from jaxgen.data.source import Examples
from jaxgen.errors import UserError
from jaxgen.objective import Preparable
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.program import Program
from jaxgen.progress import Line
from jaxgen.sampling import batch_by_batch
from jaxgen.state import State

LOOKED_AT = 8  # examples that are transformed twice, to see whether a transform draws


def run(prog: str, arguments: list[str]) -> None:
    """Write DIR/train and DIR/test, which `Prepared(source=…, folder=…)` reads in a config."""
    description = "What a config's frozen nets make of its data, computed once: latents, and texts."
    parser = Parser(prog, description).with_json()
    parser.add_argument("config", type=pathlib.Path, metavar="CONFIG", help="any of its fields follow, as for train.py")
    parser.add_argument("--out", type=pathlib.Path, metavar="DIR", required=True, help="a new folder")
    args, fields = parser.parse_known_args(arguments)
    check_new_folder(args.out)
    experiment = overrides.override(files.load(args.config), fields, prog=f"{prog} {args.config}")
    objective = experiment.objective
    frozen = [name for name, learner in objective.learners.items() if learner.optimizer is None]
    if not isinstance(objective, Preparable) or not frozen:
        raise UserError(f"{type(objective).__name__} has no frozen net whose work could be done before")
    use_compilation_cache()
    program = Program.of(experiment)
    splits = {"train": experiment.train, "test": experiment.test}
    opened = {name: pipeline.source.open() for name, pipeline in splits.items()}
    for name, pipeline in splits.items():
        _check_still(name, opened[name], pipeline)
    state = program.init()
    written, lines = {}, []
    with Line(sys.stderr) as line:
        for name, pipeline in splits.items():
            rows = _rows(program, state, objective, opened[name], pipeline, name, line)
            first = next(rows)
            size = sum(2 * math.prod(x.shape[1:]) for x in first.values()) * len(opened[name])
            check_space(args.out, size)
            prepared.write(opened[name], args.out / name, itertools.chain([first], rows))
            written[name] = {"examples": len(opened[name]), "arrays": sorted(first), "bytes": size}
            made = f"{', '.join(sorted(first))} of {len(opened[name]):,} examples, {in_words(size)}"
            lines.append(f"{args.out / name}: {made}")
    if args.json:
        return print_json({"out": str(args.out), **written})
    print(*lines, sep="\n")
    note(f"in the config: source=Prepared(source=…, folder={str(args.out / 'train')!r}), and of the test data likewise")


def _check_still(name: str, examples: Examples, pipeline: Pipeline) -> None:
    """Raise UserError where a transform is random: what was computed once would be of another image."""
    for i in np.linspace(0, len(examples) - 1, LOOKED_AT).astype(int).tolist():
        one, other = (batches.transformed(examples[i], pipeline.transforms, np.random.default_rng(s)) for s in (0, 1))
        if not np.array_equal(one["image"], other["image"]):
            raise UserError(
                f"the transforms of the {name} data change images at random, and each would need latents of its own; "
                f"leave out those that do: --{name}.transforms"
            )


def _rows(
    program: Program, state: State, objective: Preparable, examples: Examples, pipeline: Pipeline, name: str, line: Line
) -> Iterator[dict[str, np.ndarray]]:
    """Yield what the frozen nets make of the examples, in batches, in order."""
    made = program.map(objective.prepare)
    size = min(program.experiment.test_batch_size, len(examples))
    for begin in range(0, len(examples), size):
        line.hear(f"preparing, {name}", begin, len(examples))
        indices = range(begin, min(begin + size, len(examples)))
        rows = batches.rows_at(examples, pipeline.transforms, indices)
        yield from batch_by_batch(program.mesh, lambda batch: made(state, batch), rows, size=size)
