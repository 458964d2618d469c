"""How long until a config is good: uv run benchmarks/time_to_quality.py CONFIG… --quality METRIC=VALUE [--FIELD VALUE].

Trains each config with each seed to its end, then evaluates its checkpoints one after the other, as `jaxgen eval` does,
until the metric is as good as asked: not larger for distances and losses, not smaller for all else. A step's time is
the median over the configs' steps made in turn, so that what else the machine does slows all alike; data, evaluations
and compiling do not count. `--FIELD VALUE` changes a field of each config.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import pathlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxgen import loop
from jaxgen.commands.output import whole
from jaxgen.config import files, overrides
from jaxgen.errors import UserError
from jaxgen.evaluation import evaluate, evaluation_batches, sums
from jaxgen.experiment import Experiment
from jaxgen.metrics import accumulators
from jaxgen.parallel import huge_pages
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.program import Program
from jaxgen.runs.checkpoints import Checkpoints
from jaxgen.runs.divergence import Diverged
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore

SMALL_IS_GOOD = re.compile(r"^(fd_|fid$|kid_|kl$|loss|error|bits|nll)")
IN_TURN = 5  # steps of one config before the next one's turn


@dataclasses.dataclass(frozen=True)
class Quality:
    """A metric and the value that is good enough."""

    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> "Quality":
        """Read "miou=0.75"; raise UserError for anything else."""
        metric, _, value = text.partition("=")
        with contextlib.suppress(ValueError):
            if metric.isidentifier():
                return cls(metric, float(value))
        raise UserError(f"--quality {text}: write METRIC=VALUE, such as accuracy=0.99")

    def reached(self, results: Mapping[str, Any]) -> bool:
        found = results[self.metric]
        return found <= self.value if SMALL_IS_GOOD.search(self.metric) else found >= self.value

    def check(self, experiment: Experiment) -> None:
        """Raise UserError unless an evaluation of the experiment has the metric."""
        program = Program.of(experiment)
        first = next(evaluation_batches(program, experiment.test.source.open()))
        names = set(accumulators.results(sums(program, program.init(), [first]) or {}, program.data.classes))
        if self.metric not in names and not experiment.metrics:
            raise UserError(f"--quality: {self.metric} is not measured; there are {', '.join(sorted(names))}")


def until(experiment: Experiment, quality: Quality, every: int, folder: pathlib.Path) -> dict[str, Any]:
    """Train and return the step at which the quality is first there (None: never), and the metric at each step."""
    quiet = dataclasses.replace(
        experiment,
        log_every=every,  # a loss that is not finite stops the training there
        preview_every=experiment.steps,
        checkpoint_every=every,
        keep=-(-experiment.steps // every),
        loggers=(),
    )
    run = RunFolder(folder)
    try:
        last = loop.train(quiet, run)
    except Diverged:
        return {"seed": experiment.seed, "step": None, "curve": [], "diverged": True}
    if quality.metric not in last:
        raise UserError(f"--quality: {quality.metric} is not measured; there are {', '.join(sorted(last))}")
    curve: list[tuple[int, float]] = []
    program = restore(run, None, print).program
    with Checkpoints(run.checkpoints, writable=False) as checkpoints:
        for step in checkpoints.steps:
            end = step == experiment.steps
            results = last if end else evaluate(program, checkpoints.restore(step, program.shapes))
            curve.append((step, results[quality.metric]))
            if quality.reached(results):
                break
    reached = curve[-1][0] if quality.reached({quality.metric: curve[-1][1]}) else None
    return {"seed": experiment.seed, "step": reached, "curve": curve, "last": last[quality.metric]}


def step_milliseconds(experiments: Mapping[str, Experiment], rounds: int) -> dict[str, float]:
    """Return the median time of each experiment's step, all timed in turn on batches that are on the devices."""
    programs = {name: Program.of(experiment) for name, experiment in experiments.items()}
    batches = {name: next(iter(program.batches(stop=1))) for name, program in programs.items()}
    states = {name: program.init() for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            for _ in range(IN_TURN):
                begin = time.perf_counter()
                states[name], scalars = program.step(states[name], batches[name])
                jax.block_until_ready((states[name], scalars))
                if number:  # the first round compiles
                    times[name].append(time.perf_counter() - begin)
    return {name: 1000 * statistics.median(taken) for name, taken in times.items()}


def line(name: str, run: Mapping[str, Any], quality: Quality, milliseconds: float) -> str:
    head = f"{name}, seed {run['seed']}: "
    if run.get("diverged"):
        return head + "diverged"
    said = f"after {run['step']} steps" if run["step"] else "never"
    spent = f" = {run['step'] * milliseconds / 1000:.1f} s at {milliseconds:.1f} ms" if run["step"] else ""
    return head + f"{quality.metric} {quality.value:g} {said}{spent}; at the end {run['last']:.4g}"


def measure(
    experiments: Mapping[str, Experiment], quality: Quality, every: int | None, seeds: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Return, for each experiment, its step's time and what `until` found with each seed."""
    for experiment in experiments.values():
        quality.check(experiment)
    times = step_milliseconds(experiments, rounds)
    rows: dict[str, Any] = {}
    for name, experiment in experiments.items():
        rows[name] = {"milliseconds": times[name], "runs": []}
        for seed in seeds:
            with tempfile.TemporaryDirectory(prefix="jaxgen-benchmark-") as folder:
                cadence = every or math.ceil(experiment.steps / 10)
                seeded = dataclasses.replace(experiment, seed=seed)
                run = until(seeded, quality, cadence, pathlib.Path(folder) / "run")
            rows[name]["runs"].append(run)
            print(line(name, run, quality, times[name]), file=sys.stderr)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=pathlib.Path, metavar="CONFIG")
    parser.add_argument("--quality", required=True, metavar="METRIC=VALUE", help="such as accuracy=0.99")
    parser.add_argument("--every", type=whole, help="steps between evaluations; a tenth of the training by default")
    parser.add_argument("--seeds", type=whole, nargs="+", default=(0,))
    parser.add_argument("--rounds", type=whole, default=8, help=f"times {IN_TURN} steps of each config to be timed")
    parser.add_argument("--json", action="store_true")
    args, fields = parser.parse_known_args()
    use_compilation_cache()
    try:
        quality = Quality.parse(args.quality)
        experiments = {
            str(path): overrides.override(files.load(path), fields, prog="time_to_quality.py") for path in args.configs
        }
        rows = measure(experiments, quality, args.every, args.seeds, args.rounds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps({"metric": quality.metric, "value": quality.value, "configs": rows}))
        return 0
    for name, row in rows.items():
        print(*(line(name, run, quality, row["milliseconds"]) for run in row["runs"]), sep="\n")
    return 0


if __name__ == "__main__":
    huge_pages.ask()
    sys.exit(main())
