"""How fast a trained run samples here: uv run benchmarks/sample.py RUN [--n N] [--repeat R] [--json].

Compile seconds, images/s and evaluations of the net per second, medians over repeated calls. One call is one compiled
program from noise to images: nothing goes between host and device on the way, and the program says how many
evaluations it makes.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.parallel import huge_pages
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore
from jaxgen.sampling import asked, draw


def measure(folder: pathlib.Path, n: int, repeat: int) -> dict[str, Any]:
    """Time whole batches of n samples."""
    run = restore(RunFolder(folder), None, print)
    run = run.with_experiment(dataclasses.replace(run.experiment, test_batch_size=n))
    numbers = np.arange(n)
    condition = asked(run.program, numbers, run.experiment.test.source.open)
    times = []
    for seed in range(repeat + 1):
        begin = time.perf_counter()
        draw(run.program, run.state, numbers, seed, condition=condition)
        times.append(time.perf_counter() - begin)
    first, *rest = times
    seconds = statistics.median(rest)
    nfe = run.program.generative.protocol().get("nfe")
    return {
        "run": str(folder),
        "device": jax.devices()[0].device_kind,
        "batch": n,
        "compile_seconds": round(first - seconds, 2),
        "images_per_second": round(n / seconds, 1),
        "nfe": nfe,
        # One evaluation is one forward pass for one image; guidance makes two.
        "evaluations_per_second": None if nfe is None else round(n * nfe / seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    try:
        rows = [measure(folder, args.n, args.repeat) for folder in args.runs]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(*(f"{name} {value}" for name, value in row.items()), sep="  ")
    return 0


if __name__ == "__main__":
    huge_pages.ask()
    sys.exit(main())
