"""How fast a config trains here: uv run benchmarks/train_step.py CONFIG… [--steps N] [--image HxWxC] [--FIELD VALUE …].

For each config: compile seconds, steps/s and images/s (median over steps, batches already on the device), peak memory,
and FLOP/s as a share of the rate at which this machine multiplies large matrices, measured in the same run; on a chip
whose peak is known, model FLOPs utilisation (MFU: without what rematerialisation repeats, of the peak). A config
whose data is not here runs on fake data of the same shape, and says so. `--FIELD VALUE` changes a field of each config.
"""

import argparse
import json
import pathlib
import resource
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.commands.plan import size
from jaxgen.config import files, overrides
from jaxgen.data.source import Shape
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel import huge_pages
from jaxgen.plan import chips
from jaxgen.plan.fake_data import with_data
from jaxgen.plan.roofline import model_flops, step_flops
from jaxgen.program import Program


def matmul_rate(dtype: str, seconds: float = 1.0) -> float:
    """Measure FLOP/s of a square matrix product, the median of as many as fit in `seconds`."""
    side = 2048 if jax.devices()[0].platform == "cpu" else 8192  # a smaller one takes an accelerator less than a call
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - begin)
    return 2 * side**3 / statistics.median(times)


def measure(experiment: Experiment, steps: int, size: Shape | None) -> dict[str, Any]:
    """Time the train step of an experiment on all devices."""
    experiment, origin = with_data(experiment, size)
    program = Program.of(experiment)
    ready = list(program.batches(stop=2))
    state = program.init()
    begin = time.perf_counter()
    compiled = program.step.lower(state, ready[0]).compile()
    compile_seconds = time.perf_counter() - begin
    operations = step_flops(program)
    times = []
    for i in range(steps + 2):
        begin = time.perf_counter()
        state, scalars = compiled(state, ready[i % 2])
        jax.block_until_ready((state, scalars))
        times.append(time.perf_counter() - begin)
    seconds = statistics.median(times[2:])
    modules = [learner.module for learner in experiment.objective.learners.values()]
    rate = matmul_rate(getattr(modules[0], "dtype", "float32")) * jax.device_count()
    memory = compiled.memory_analysis()
    chip = chips.of_device_kind(jax.devices()[0].device_kind)
    model = model_flops(program)
    peak = jax.devices()[0].memory_stats() or {}
    return {
        "data": origin,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "batch_size": experiment.batch_size,
        "compile_seconds": compile_seconds,
        "steps_per_second": 1 / seconds,
        "images_per_second": experiment.batch_size / seconds,
        "gflop_per_step": operations / 1e9,
        "matmul_gflops": rate / 1e9,
        "share_of_matmul_rate": operations / seconds / rate,
        "mfu": chip and model / seconds / (chip.peak / chip.cores * jax.device_count()),
        "step_megabytes": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6,
        "peak_megabytes": peak.get("peak_bytes_in_use", 0) / 1e6,  # of the device; a CPU does not say
        "process_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--image", type=size, metavar="HxWxC", help="size of fake images, where nothing tells it")
    parser.add_argument("--json", action="store_true")
    args, fields = parser.parse_known_args()
    rows = {}
    for path in args.configs:
        try:
            experiment = overrides.override(files.load(path), fields, prog="train_step.py")
            rows[str(path)] = row = measure(experiment, args.steps, args.image)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        if not args.json:
            print(f"{path} ({row['data']} data, {row['device']})")
            print(
                f"  {row['steps_per_second']:.2f} steps/s  {row['images_per_second']:.1f} images/s"
                f"  compile {row['compile_seconds']:.1f} s  {row['gflop_per_step']:.1f} GFLOP a step"
                f"  {row['share_of_matmul_rate']:.0%} of {row['matmul_gflops']:.0f} GFLOP/s"
                + (f"  MFU {row['mfu']:.1%}" if row["mfu"] else "")
                + f"  memory: step {row['step_megabytes']:.0f} MB, process {row['process_megabytes']:.0f} MB",
                flush=True,
            )
    if args.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    huge_pages.ask()
    sys.exit(main())
