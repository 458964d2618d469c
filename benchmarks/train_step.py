"""How fast a config trains here: uv run benchmarks/train_step.py CONFIG… [--steps N] [--batch-size B] [--side S].

For each config: compile seconds, steps/s and images/s (median over steps, batches already on the device), peak memory,
and FLOP/s as a share of the rate at which this machine multiplies large matrices, measured in the same run. A config
whose data is not here runs on fake data of the same shape, and says so.
"""

import argparse
import dataclasses
import json
import pathlib
import resource
import statistics
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import config as configs
from jaxgen.data import batches
from jaxgen.data.augment import Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeLabels, FakeLatents, FakeMasks
from jaxgen.data.latents import Latents
from jaxgen.experiment import Experiment
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.parallel.flops import flops
from jaxgen.parallel.mesh import put_batch
from jaxgen.program import program
from jaxgen.typing import UserError


def matmul_rate(dtype: str, side: int = 2048, seconds: float = 1.0) -> float:
    """Measure FLOP/s of a square matrix product, the median of as many as fit in `seconds`."""
    a = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    product(a, a).block_until_ready()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begin = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - begin)
    return 2 * side**3 / statistics.median(times)


def with_data(experiment: Experiment, side: int) -> tuple[Experiment, str]:
    """Return the experiment and where its data comes from; fake pictures stand in for data that is not here."""
    source, transforms = experiment.train.source, experiment.train.transforms
    try:
        source.open()
        return experiment, "its own"
    except UserError:
        classes = experiment.objective.net.classes  # pyrefly: ignore
        match experiment.objective:
            case Diffusion() if isinstance(source, Latents):
                fake: Any = FakeLatents(classes=classes or 1, size=16)
            case Segmentation():
                fake = FakeMasks(height=side, width=side, classes=classes, size=16)
            case _:
                fake = FakeLabels(height=side, width=side, classes=classes or 1, size=16)
        unlabelled = () if classes else (Unlabelled(),)
        return dataclasses.replace(experiment, train=Pipeline(fake, (*unlabelled, *transforms))), "fake"


def measure(experiment: Experiment, steps: int, side: int) -> dict[str, Any]:
    """Time the train step of an experiment on all devices."""
    experiment, data = with_data(experiment, side)
    mesh = experiment.mesh.build()
    train_set = experiment.train.source.open()
    run = program(experiment, mesh, batches.element(train_set, experiment.train.transforms))
    feed = batches.train_batches(
        train_set, experiment.train.transforms, seed=0, batch_size=experiment.batch_size, start=0, stop=2
    )
    with jax.set_mesh(mesh):
        ready = [put_batch(mesh, batch) for batch in feed]
        state = run.init()
        begin = time.perf_counter()
        compiled = run.step.lower(state, ready[0]).compile()  # pyrefly: ignore[missing-attribute]
        compile_seconds = time.perf_counter() - begin
        operations = flops(run.step, state, ready[0])
        times = []
        for i in range(steps + 2):
            begin = time.perf_counter()
            state, scalars = compiled(state, ready[i % 2])
            jax.block_until_ready((state, scalars))
            times.append(time.perf_counter() - begin)
    seconds = statistics.median(times[2:])
    dtype = getattr(experiment.objective.net, "dtype", "float32")  # pyrefly: ignore
    rate = matmul_rate(dtype) * jax.device_count()
    memory = compiled.memory_analysis()
    return {
        "data": data,
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "batch_size": experiment.batch_size,
        "compile_seconds": compile_seconds,
        "steps_per_second": 1 / seconds,
        "images_per_second": experiment.batch_size / seconds,
        "gflop_per_step": operations / 1e9,
        "matmul_gflops": rate / 1e9,
        "share_of_matmul_rate": operations / seconds / rate,
        "step_megabytes": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e6,
        "process_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int)
    # Larger than any crop that a config asks for; where it crops none, say the data's own size.
    parser.add_argument("--side", type=int, default=500, help="height and width of fake pictures")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows = {}
    for path in given.configs:
        try:
            experiment = configs.load(path)
            if given.batch_size:
                experiment = dataclasses.replace(experiment, batch_size=given.batch_size)
            rows[str(path)] = row = measure(experiment, given.steps, given.side)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        if not given.json:
            print(f"{path} ({row['data']} data, {row['device']})")
            print(
                f"  {row['steps_per_second']:.2f} steps/s  {row['images_per_second']:.1f} images/s"
                f"  compile {row['compile_seconds']:.1f} s  {row['gflop_per_step']:.1f} GFLOP a step"
                f"  {row['share_of_matmul_rate']:.0%} of {row['matmul_gflops']:.0f} GFLOP/s"
                f"  memory: step {row['step_megabytes']:.0f} MB, process {row['process_megabytes']:.0f} MB",
                flush=True,
            )
    if given.json:
        print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
