"""Evaluation: sums over batches on the device, added up exactly on the host, divided once at the end."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen import metrics
from jaxgen.data import batches
from jaxgen.data.batches import Pipeline
from jaxgen.data.source import Examples
from jaxgen.objective import Metrics, Objective
from jaxgen.parallel.mesh import batch_parts, put_batch, replicated
from jaxgen.restored import Restored
from jaxgen.state import State
from jaxgen.typing import UserError

Evaluate = Callable[[State, Iterable[dict[str, np.ndarray]]], Metrics | None]


def evaluator(objective: Objective, mesh: Mesh, seed: int, stop: Callable[[], bool] = lambda: False) -> Evaluate:
    """Return a function that evaluates a state over host batches; it compiles once for each shape of batch.

    The function returns None if `stop` turned true on the way: a part of the data says nothing about the whole.
    """
    # Every evaluation draws the same random numbers: its result is a function of the state and the data.
    step = jax.jit(
        lambda state, batch: objective.evaluate(state, batch, jax.random.key(seed)), out_shardings=replicated(mesh)
    )

    def evaluate(state: State, batches: Iterable[dict[str, np.ndarray]]) -> Metrics | None:
        total: Metrics | None = None
        pending: Any = None
        for batch in batches:
            if stop():
                return None
            sums = step(state, put_batch(mesh, batch))
            if pending is not None:  # read one batch late, so that the device never waits for the host
                total = _add(total, pending)
            pending = sums
        return None if pending is None else _add(total, pending)

    return evaluate


def evaluation_batches(
    pipeline: Pipeline, examples: Examples, mesh: Mesh, batch_size: int
) -> Iterator[dict[str, np.ndarray]]:
    """Return every example once, in batches of the given size or what next divides over the devices."""
    size = -(-batch_size // batch_parts(mesh)) * batch_parts(mesh)
    return batches.test_batches(
        examples,
        pipeline.transforms,
        batch_size=size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        workers=pipeline.workers,
    )


def evaluate(run: Restored) -> dict[str, Any]:
    """Evaluate a restored state on its experiment's test data, JSON-ready."""
    experiment = run.experiment
    examples = experiment.test.source.open()
    with jax.set_mesh(run.mesh):
        measure = evaluator(experiment.objective, run.mesh, experiment.seed)
        sums = measure(run.state, evaluation_batches(experiment.test, examples, run.mesh, experiment.test_batch_size))
    if sums is None:
        raise UserError("the test data is empty")
    return metrics.results(sums, examples.classes)


def _add(total: Metrics | None, sums: Metrics) -> Metrics:
    host = jax.device_get(sums)
    return metrics.widen(host) if total is None else metrics.merge(total, host)
