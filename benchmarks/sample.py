"""How fast a trained run samples here: uv run benchmarks/sample.py RUN [--n N] [--repeat R] [--json].

Compile seconds, images/s and evaluations of the net per second, medians over repeated calls. One call is one compiled
program from noise to pictures: nothing goes between host and device on the way, and the program says how many
evaluations it makes.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from typing import Any

import jax
import numpy as np

from jaxgen.cli import use_compilation_cache
from jaxgen.errors import UserError
from jaxgen.objective import Generative
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore
from jaxgen.sampling import balanced, drawer


def measure(folder: pathlib.Path, n: int, repeat: int) -> dict[str, Any]:
    """Time whole batches of n samples."""
    run = restore(RunFolder(folder), None, print)
    objective = run.experiment.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{folder} is no run of a generator")
    numbers = np.arange(n)
    labels = balanced(numbers, len(run.data.classes)) if objective.conditional() else None
    with jax.set_mesh(run.mesh):
        draw = drawer(objective, run.mesh, run.state, run.data.element["image"][0], n)
        begin = time.perf_counter()
        draw(0, numbers, labels)
        first = time.perf_counter() - begin
        times = []
        for seed in range(1, repeat + 1):
            begin = time.perf_counter()
            draw(seed, numbers, labels)
            times.append(time.perf_counter() - begin)
    seconds = statistics.median(times)
    nfe = objective.protocol().get("nfe")
    return {
        "run": str(folder),
        "device": jax.devices()[0].device_kind,
        "batch": n,
        "compile_seconds": round(first - seconds, 2),
        "images_per_second": round(n / seconds, 1),
        "nfe": nfe,
        # One evaluation is one forward pass for one picture; guidance makes two.
        "evaluations_per_second": None if nfe is None else round(n * nfe / seconds),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN")
    parser.add_argument("--n", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    use_compilation_cache()
    try:
        rows = [measure(folder, given.n, given.repeat) for folder in given.runs]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(rows))
        return 0
    for row in rows:
        print(*(f"{name} {value}" for name, value in row.items()), sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
