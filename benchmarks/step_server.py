"""How benchmarks/against_torch.py talks to the processes that it times: lines on stdin, JSON on stdout.

Standard library only: torch's side runs in an environment that has torch and nothing of jaxgen. A process first says
what it runs on. Then `open NAME` makes a workload ready and says what its nets are, and `run N` makes N steps and says
how many seconds they took.
"""

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

TRAINING = ("resnet18", "fcn_resnet50", "songunet", "dit_s2", "dcgan")
SAMPLING = {"sample_1": 1, "sample_16": 16, "sample_64": 64}  # samples a call; torch's side needs diffusers, too
TEXT_SAMPLING = {"text_1": 1, "text_16": 16}  # samples a call; torch's side needs diffusers and transformers, too
EVALUATIONS = 35  # of the net, for each sample; twice as many where a text guides
WORKLOADS = (*TRAINING, *SAMPLING, *TEXT_SAMPLING)
DTYPES = ("float32", "bfloat16")
MODES = ("eager", "eager_channels_last", "compile", "compile_channels_last", "compile_graphs")  # of torch
BATCHES = 4  # different ones, taken in turn
WARM_UP = 3  # steps before anything is timed: they compile, tune and fill caches


@dataclasses.dataclass(frozen=True)
class Workload:
    """One training or sampler, ready to run."""

    parameters: int
    forward_flops: int
    """Of each net once (of a discriminator twice), on one batch; without products with padding."""
    step: Callable[[int], None]
    """Start the training step, or the drawing of samples, of this number."""
    wait: Callable[[], None]
    """Return when all steps are done."""


def serve(hello: Mapping[str, Any], make: Callable[[str], Workload]) -> None:
    """Answer lines until stdin ends; `make` prepares a workload by its name, and what it raises is told."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    print(json.dumps(hello), file=answers)
    workload, done = None, 0
    for line in sys.stdin:
        command, argument = line.split()
        try:
            if command == "open":
                workload = None  # before the next one is made: both need not fit into memory
                workload, done = make(argument), WARM_UP
                _steps(workload, 0, WARM_UP)
                answer = {"parameters": workload.parameters, "forward_flops": workload.forward_flops}
            else:
                assert workload is not None
                answer = {"seconds": _steps(workload, done, int(argument))}
                done += int(argument)
        except Exception as error:  # the driver says it: one side's compiler may be missing where the other runs
            workload = None
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)


def _steps(workload: Workload, start: int, count: int) -> float:
    begin = time.perf_counter()
    for number in range(start, start + count):
        workload.step(number)
    workload.wait()
    return time.perf_counter() - begin
