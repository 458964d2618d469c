"""Do generated samples help a classifier that has few examples? uv run benchmarks/augmentation.py [--out FILE.png].

Takes k shots of each class, trains a generator of each kind on these alone, and a classifier on each of these arms:

real; real + classical (the config's own transforms, and Mixup); real + duplicated real, which must change nothing;
real + new real, the ceiling; and of each generator: real + generated; real + classical + generated; generated only
(CAS, arXiv:1905.10887); real + generated with shuffled labels, which must hurt.

What is added is as much in each arm, `--ratio` times the shots; the classifier's net, recipe and steps are the same in
all, and the test split is the config's. Nothing is chosen by the test split, nor by a validation split: there is none.
Seed s decides the shots, the generators and, with its number, each classifier. A difference is to "real" of the same
shots and seeds; its 95 % interval is Student's over the shots, of means over the classifiers.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import seeds
from kshot_arms import REAL, Arm, Classifiers, Eye, Opened, Rows, Trainer, arms_of_generated, arms_of_real, generated
from scipy import stats

from jaxgen.commands.output import whole
from jaxgen.config import files
from jaxgen.data.kshot import KShot
from jaxgen.errors import UserError
from jaxgen.objectives.classification import Classification
from jaxgen.parallel import huge_pages
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.program import Program

GENERATORS = {
    "diffusion": "configs/diffusion/digits_conditional.py",
    "gan": "configs/gan/digits_conditional.py",
}
TRIAL = 60  # steps by which a generator's speed is found
Record = dict[str, Any]


# --- the comparison ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Bench:
    """Classifiers and generators, and what they did."""

    classifiers: Classifiers
    generators: dict[str, Trainer]
    eye: Eye
    repeats: int
    """Classifiers of each arm and seed."""
    records: list[Record] = dataclasses.field(default_factory=list)
    """Of each arm: k, seed, generator ("" for none), arm, accuracy."""
    seen: list[Record] = dataclasses.field(default_factory=list)
    """Of each generator: k, seed, generator ("" for new real rows), read_back, recall, seconds it took."""

    def run(self, k: int, seed: int, shots: Rows, new: Rows) -> None:
        """Train everything on one draw of shots."""
        self._measure(k, seed, "", arms_of_real(shots, new))
        self.seen.append({"k": k, "seed": seed, "generator": ""} | self.eye.sees(new))
        for name, trainer in self.generators.items():
            begin = time.perf_counter()
            made = generated(trainer, shots, len(new), seed)
            seconds = time.perf_counter() - begin
            if made is None:
                print(f"k {k}, seed {seed}: {name} diverged, and is left out", file=sys.stderr)
                continue
            self.seen.append({"k": k, "seed": seed, "generator": name, "seconds": seconds} | self.eye.sees(made))
            self._measure(k, seed, name, arms_of_generated(shots, made, seed))

    def _measure(self, k: int, seed: int, generator: str, arms: Mapping[str, Arm]) -> None:
        for name, arm in arms.items():
            own = [self.classifiers.accuracy(arm, seed * self.repeats + i) for i in range(self.repeats)]
            row = {"k": k, "seed": seed, "generator": generator, "arm": name, "accuracy": statistics.mean(own)}
            self.records.append(row)
        shown = "  ".join(f"{row['arm']} {row['accuracy']:.3f}" for row in self.records[-len(arms) :])
        print(f"k {k}, seed {seed}, {generator or 'no generator'}: {shown}", file=sys.stderr)


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the mean by Student's t; raises UserError for fewer than two."""
    n = len(differences)
    if n < 2:
        raise UserError("an interval needs two seeds at least; set --seeds to 10 or so")
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    mean = statistics.mean(differences)
    return mean - half, mean + half


def summary(records: Sequence[Record], k: int) -> list[Record]:
    """Return a row for each arm: its mean accuracy and, but for "real", the paired difference to it, with low and high.

    An arm that is there for fewer seeds is compared with "real" of these.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in records:
        if row["k"] == k:
            found.setdefault((row["generator"], row["arm"]), {})[row["seed"]] = row["accuracy"]
    rows = []
    for (generator, arm), values in found.items():
        row: Record = {"generator": generator, "arm": arm, "seeds": len(values)}
        row |= {"accuracy": statistics.mean(values.values())}
        if arm != REAL and len(values) > 1:
            differences = [values[seed] - found["", REAL][seed] for seed in sorted(values)]
            low, high = interval(differences)
            row |= {"difference": statistics.mean(differences), "low": low, "high": high}
        rows.append(row)
    return rows


def lines(rows: Sequence[Record], seen: Sequence[Record], k: int) -> list[str]:
    """Write the rows of `summary`, and what was seen of the generators, as a table."""
    wide = max(len(_name(row)) for row in rows) + 2
    out = [f"{f'{k} shots of each class':<{wide}}{'accuracy':>10}{'to real':>10}   95 % interval"]
    for row in rows:
        out.append(f"{_name(row):<{wide}}{100 * row['accuracy']:>8.1f} %")
        if "difference" in row:
            out[-1] += f"{100 * row['difference']:>+10.1f}   {100 * row['low']:+.1f} … {100 * row['high']:+.1f}"
    for generator in dict.fromkeys(row["generator"] for row in seen):
        own = [row for row in seen if row["k"] == k and row["generator"] == generator]
        means = {
            name: statistics.mean(row[name] for row in own)
            for name in ("read_back", "recall", "seconds")
            if own and own[0].get(name) is not None
        }
        shown = ", ".join(f"{name.replace('_', '-')} {value:.3g}" for name, value in means.items())
        out.append(f"{generator or 'new real'}: {shown or 'diverged with every seed'}")
    return out


def _name(row: Record) -> str:
    return row["arm"].replace("generated", row["generator"] or "generated") if row["generator"] else row["arm"]


def draw(tables: Mapping[int, Sequence[Record]], out: pathlib.Path) -> None:
    """Draw each arm's difference to "real" with its interval, a panel for each k and a colour for each generator."""
    import matplotlib.figure

    order = list(dict.fromkeys(_name(row) for rows in tables.values() for row in rows if "difference" in row))
    names = list(dict.fromkeys(row["generator"] for rows in tables.values() for row in rows if row["generator"]))
    colours = {"": "0.35"} | {name: f"C{i}" for i, name in enumerate(names)}
    size = (4.0 + 3.6 * len(tables), 1.4 + 0.34 * len(order))
    figure = matplotlib.figure.Figure(figsize=size, dpi=120, layout="constrained")
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axis, (k, rows) in zip(panels, tables.items(), strict=True):
        axis.axvline(0, color="0.7", linewidth=1)
        for row in rows:
            if "difference" in row:
                mean, place = 100 * row["difference"], order.index(_name(row))
                reach = [[mean - 100 * row["low"]], [100 * row["high"] - mean]]
                axis.errorbar(mean, place, xerr=reach, fmt="o", color=colours[row["generator"]], capsize=3)
        base = next(row for row in rows if row["arm"] == REAL)
        axis.set_title(f"{k} shots of each class: real alone {100 * base['accuracy']:.1f} %", fontsize=10)
        axis.set_xlabel("points of accuracy, to real alone")
        axis.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(order)), order)
    panels[0].invert_yaxis()
    figure.savefig(out)


# --- the command ------------------------------------------------------------------------------------------------------


def bench(args: argparse.Namespace, devices: Any = None) -> Bench:
    """Read the configs, and run all that was asked for. Raises UserError before any training."""
    if args.seeds < 2:
        interval([0.0] * args.seeds)
    if args.classifiers < 1:
        raise UserError(f"--classifiers is {args.classifiers}; it must be at least 1")
    config = files.load(args.config)
    if not isinstance(config.objective, Classification):
        raise UserError(f"--config {args.config}: its objective is no Classification")
    config = dataclasses.replace(config, steps=args.classifier_steps, batch_size=args.classifier_batch)
    whole_split = Opened(config.train.source.open())

    def held(k: int, seed: int, after: int) -> Rows:
        source = KShot(source=whole_split, k=k, seed=seed, after=after)
        return Rows.held(source.open(), config.test.transforms)

    draws = {(k, seed): (held(k, seed, 0), held(args.ratio * k, seed, k)) for k in args.k for seed in range(args.seeds)}
    shots = next(iter(draws.values()))[0]
    test = Rows.held(config.test.source.open(), config.test.transforms)
    classifiers = Classifiers(config, shots, test, devices)
    few = min(args.k) * args.ratio * len(shots.classes)
    generators = {name: generator(name, args, shots, few, devices) for name in args.generator}
    eye = Eye(next(iter(generators.values())).program, test)
    result = Bench(classifiers, generators, eye, args.classifiers)
    for (k, seed), (own, new) in draws.items():
        result.run(k, seed, own, new)
    return result


def generator(name: str, args: argparse.Namespace, shots: Rows, few: int, devices: Any = None) -> Trainer:
    """Return what trains a generator. Raises UserError unless it is asked for classes and makes pictures like these."""
    experiment = files.load(GENERATORS.get(name, name))
    if args.steps:
        experiment = dataclasses.replace(experiment, steps=args.steps)
    # A batch that no number of samples is smaller than: one shape, which compiles once.
    experiment = dataclasses.replace(experiment, test_batch_size=min(experiment.test_batch_size, few))
    trainer = Trainer.of(experiment, shots, devices)
    program = trainer.program
    if program.generative.conditions() != ("label",):
        raise UserError(f"--generator {name}: it is not asked for a class; take a class-conditional config")
    with jax.set_mesh(program.mesh):
        shape = program.sample.function.eval_shape(*_asked(program)).shape[1:]
    if shape != shots.image.shape[1:]:
        sizes = ["x".join(map(str, size)) for size in (shape, shots.image.shape[1:])]
        raise UserError(f"--generator {name}: it makes pictures of {sizes[0]}, and the classifier reads {sizes[1]}")
    if args.minutes:
        steps = seeds.for_seconds(experiment, 60 * args.minutes, trial=TRIAL).steps
        print(f"{name}: {steps} steps", file=sys.stderr)
        trainer = Trainer.of(dataclasses.replace(experiment, steps=steps), shots, devices)
    return trainer


def _asked(program: Program) -> tuple[Any, ...]:
    """The shapes of the arguments of `Program.sample` for one sample."""
    number = jax.ShapeDtypeStruct((1,), np.int32)
    return program.shapes, None, jax.ShapeDtypeStruct((), np.uint32), number, {"label": number}, None


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--config", default="configs/classification/digits_cnn.py", help="of a classifier, and its data")
    found.add_argument(
        "--generator", nargs="+", default=tuple(GENERATORS), metavar="NAME",
        help=f"{' or '.join(GENERATORS)}, both by default, or a config of a class-conditional generator",
    )  # fmt: skip
    found.add_argument("--k", type=whole, nargs="+", default=(10,), help="shots of each class")
    found.add_argument("--ratio", type=whole, default=3, help="added pictures for each shot")
    found.add_argument("--seeds", type=whole, default=10, help="draws of shots, each with generators of its own")
    found.add_argument("--classifiers", type=whole, default=2, help="of each arm and seed")
    length = found.add_mutually_exclusive_group()
    length.add_argument("--steps", type=whole, help="of each generator; its config's by default")
    length.add_argument("--minutes", type=float, help="of each generator's steps, as many as this machine makes")
    found.add_argument("--classifier-steps", type=whole, default=200)
    found.add_argument("--classifier-batch", type=whole, default=64)
    found.add_argument("--out", type=pathlib.Path, metavar="FILE.png", help="a picture of the differences")
    found.add_argument("--json", action="store_true")
    return found


def main() -> int:
    args = parser().parse_args()
    use_compilation_cache()
    try:
        result = bench(args)
        tables = {k: summary(result.records, k) for k in args.k}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        draw(tables, args.out)
    if args.json:
        asked = {name: str(value) if isinstance(value, pathlib.Path) else value for name, value in vars(args).items()}
        print(json.dumps({"asked": asked, "tables": tables, "records": result.records, "seen": result.seen}))
        return 0
    for k, rows in tables.items():
        print(*lines(rows, result.seen, k), "", sep="\n")
    return 0


if __name__ == "__main__":
    huge_pages.ask()
    sys.exit(main())
