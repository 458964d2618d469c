"""How fast data comes, and whether training waits for it: uv run benchmarks/data.py CONFIG… [--steps N] [--json].

For each config: examples/s of the pipeline alone, with nothing else to do, and the share of a step's time that the
loop spends waiting for its next batch while it trains (median over steps).
"""

import argparse
import json
import pathlib
import statistics
import sys
import time
from typing import Any

import jax

from jaxgen.config import files
from jaxgen.data import batches
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel.mesh import put_batch
from jaxgen.program import Program


def measure(experiment: Experiment, steps: int) -> dict[str, Any]:
    """Drain the pipeline alone for one epoch at most, then under training."""
    train_set = experiment.train.source.open()
    size, workers = experiment.batch_size, experiment.train.workers

    def feed(count: int) -> Any:
        return batches.train_batches(
            train_set, experiment.train.transforms, seed=0, batch_size=size, start=0, stop=count, workers=workers
        )

    epoch = max(len(train_set) // size, 1)
    for _ in feed(epoch):  # the first epoch decodes what is then kept
        pass
    begin = time.perf_counter()
    for _ in feed(epoch):
        pass
    alone = epoch * size / (time.perf_counter() - begin)

    program = Program.of(experiment)
    waits, times = [], []
    source, state = feed(steps + 5), program.init()
    last = time.perf_counter()
    pending = None
    for _ in range(steps + 4):
        begin = time.perf_counter()
        rows = next(source)
        waits.append(time.perf_counter() - begin)
        state, scalars = program.step(state, put_batch(program.mesh, rows))
        if pending is not None:
            jax.block_until_ready(pending)
        pending = scalars
        times.append(time.perf_counter() - last)
        last = time.perf_counter()
    return {
        "examples_per_second": alone,
        "step_seconds": statistics.median(times[4:]),
        "wait_share": sum(waits[4:]) / sum(times[4:]),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = {}
    for path in args.configs:
        try:
            rows[str(path)] = row = measure(files.load(path), args.steps)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        if not args.json:
            print(
                f"{path}: {row['examples_per_second']:.0f} examples/s alone;"
                f" a step takes {row['step_seconds'] * 1e3:.0f} ms and waits {row['wait_share']:.1%} of it for data",
                flush=True,
            )
    if args.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
