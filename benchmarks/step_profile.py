"""Where a training step's time goes on one CPU core: uv run benchmarks/step_profile.py CONFIG|WORKLOAD… [--json].

Names of workloads are those of benchmarks/against_torch.py. A step of each runs on one core, so that its parts follow
each other, and XLA's own trace says how long each instruction takes; medians over `--steps` of them. Convolutions, and
products that YNNPACK splits for its threads, are started there and work unseen: they have what the others leave.
"""

import argparse
import collections
import gzip
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

if hasattr(os, "sched_setaffinity"):  # before jax counts the cores
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])

import jax
from jaxgen_steps import EXPERIMENTS, Training

from jaxgen.config import files
from jaxgen.errors import UserError
from jaxgen.parallel import huge_pages
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.plan import hlo

HEAVY = "convolutions and products"
SUMS = "sums and maxima, with what is fused into them"
COPIES = "copies, transposes, slices, padding"
DRAWS = "random numbers"
ELEMENTWISE = "elementwise"
OTHER = "loops and the rest"
ORDER = (HEAVY, SUMS, ELEMENTWISE, COPIES, DRAWS, OTHER)

_HEAVY = {"convolution", "dot", "custom-call"}
_SUMS = {"reduce", "reduce-window", "scatter", "select-and-scatter", "sort"}
_DRAWS = {"rng-bit-generator", "xor", "shift-left"}
_COPIES = {
    "copy", "transpose", "slice", "dynamic-slice", "dynamic-update-slice", "pad", "concatenate", "broadcast", "reshape",
    "bitcast", "gather", "reverse", "iota", "constant", "parameter", "tuple", "get-tuple-element", "convert",
}  # fmt: skip
_OTHER = {"while", "conditional", "call"}


def kind(module: hlo.HloModule, instruction: hlo.Instruction) -> str:
    """Return which of `ORDER` an instruction is."""
    if instruction.op in _OTHER:
        return OTHER
    fused = instruction.op == "fusion"
    ops = {x.op for x in module.fused(instruction).instructions.values()} if fused else {instruction.op}
    for name, found in ((HEAVY, _HEAVY), (SUMS, _SUMS), (DRAWS, _DRAWS)):
        if ops & found:
            return name
    return COPIES if ops <= _COPIES else ELEMENTWISE


def own_times(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Return instructions and the milliseconds of each that none of those it calls has, by thread."""
    threads = collections.defaultdict(list)
    for event in events:
        if event.get("ph") == "X" and "hlo_op" in event.get("args", {}):
            threads[event["tid"]].append(event)
    result = []
    for found in threads.values():
        found.sort(key=lambda event: (event["ts"], -event["dur"]))
        open_: list[list[Any]] = []  # name, end, own time
        for event in found:
            while open_ and open_[-1][1] <= event["ts"]:
                name, _, own = open_.pop()
                result.append((name, own / 1e3))
            if open_:
                open_[-1][2] -= event["dur"]
            open_.append([event["args"]["hlo_op"], event["ts"] + event["dur"], event["dur"]])
        result += [(name, own / 1e3) for name, _, own in open_]
    return result


def profile(name: str, steps: int) -> dict[str, float]:
    """Return the milliseconds of a step, and of each kind of instruction."""
    experiment = EXPERIMENTS[name]("float32") if name in EXPERIMENTS else files.load(pathlib.Path(name))
    training = Training(experiment)
    text = training.program.step.lower(training.state, training.batches[0]).compile().as_text()
    module = hlo.read(text)
    kinds = {x.name: kind(module, x) for c in module.computations.values() for x in c.instructions.values()}
    for number in range(2):
        training.step(number)
        training.wait()
    rows = []
    for number in range(steps):
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                begin = time.perf_counter()
                training.step(number)
                training.wait()
                whole = 1e3 * (time.perf_counter() - begin)
            file = next(pathlib.Path(folder).glob("**/*.trace.json.gz"))
            times = own_times(json.loads(gzip.decompress(file.read_bytes()))["traceEvents"])
        row = dict.fromkeys(ORDER, 0.0)
        for instruction, own in times:
            row[kinds.get(instruction, OTHER)] += own
        row[HEAVY] += max(0.0, whole - sum(row.values()))
        rows.append({"step": whole, **row})
    return {key: statistics.median(row[key] for row in rows) for key in ("step", *ORDER)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="CONFIG|WORKLOAD")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    rows = {}
    for name in args.names:
        try:
            rows[name] = profile(name, args.steps)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"{name}: {rows[name]['step']:.0f} ms", file=sys.stderr)
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{'one core, ms (share)':<48}" + "".join(f"{pathlib.Path(name).stem:>20}" for name in rows))
    for key in ("step", *ORDER):
        cells = [f"{row[key]:.0f} ({row[key] / row['step']:.0%})" for row in rows.values()]
        print(f"{key:<48}" + "".join(f"{cell:>20}" for cell in cells))
    return 0


if __name__ == "__main__":
    huge_pages.ask()
    sys.exit(main())
