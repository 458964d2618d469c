"""Evaluation: sums over batches on the device, added up exactly on the host, divided once at the end."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.data import batches
from jaxgen.data.batches import Pipeline
from jaxgen.data.source import Examples
from jaxgen.diffusion.sampling_schedules import SamplingSchedule
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.features.inception import Inception
from jaxgen.metrics import accumulators
from jaxgen.metrics.distribution import Distribution
from jaxgen.metrics.view import Samples
from jaxgen.noise import numbered
from jaxgen.objective import Generative, Metrics, Objective
from jaxgen.parallel.activations import constrained
from jaxgen.parallel.mesh import batch_parts, batch_sharding, process_rows, put_batch, replicated
from jaxgen.pictures.pixels import to_float
from jaxgen.runs.restore import Restored
from jaxgen.sampling import balanced, drawer
from jaxgen.state import State
from jaxgen.typing import Example

Evaluate = Callable[[State, Iterable[dict[str, np.ndarray]]], Metrics | None]


def evaluator(objective: Objective, mesh: Mesh, seed: int, stop: Callable[[], bool] = lambda: False) -> Evaluate:
    """Return a function that evaluates a state over host batches; it compiles once for each shape of batch.

    The function returns None if `stop` turned true on the way: a part of the data says nothing about the whole.
    """
    # Every evaluation draws the same random numbers: its result is a function of the state and the data.
    step = jax.jit(
        constrained(mesh, lambda state, batch: objective.evaluate(state, batch, jax.random.key(seed))),
        out_shardings=replicated(mesh),
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
    """Return every example once, in batches of the given size or what next divides over the devices.

    Of each batch a process gets the rows that its devices hold.
    """
    size = -(-batch_size // batch_parts(mesh)) * batch_parts(mesh)
    return batches.test_batches(
        examples,
        pipeline.transforms,
        batch_size=size,
        rows=process_rows(mesh, size),
        workers=pipeline.workers,
    )


REAL = 50_000  # real examples that samples are compared with, at most


class _Some:
    """A part of the examples."""

    def __init__(self, examples: Examples, chosen: np.ndarray):
        self.classes = examples.classes
        self._examples, self._chosen = examples, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Example:
        return self._examples[int(self._chosen[index])]


def _some(examples: Examples) -> Examples:
    if len(examples) <= REAL:
        return examples
    chosen = np.random.default_rng(0).permutation(len(examples))[:REAL]
    return _Some(examples, np.sort(chosen))


class SampleEvaluator:
    """Samples of one state beside the real examples: what an experiment's measures look at."""

    def __init__(
        self,
        experiment: Experiment,
        mesh: Mesh,
        state: State,
        train_set: Examples,
        test_set: Examples,
        *,
        weak: State | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        objective = experiment.objective
        if not isinstance(objective, Generative):
            raise UserError(
                f"{type(objective).__name__} makes no samples to measure; remove the experiment's `measures`"
            )
        self.classes = test_set.classes
        self.protocol = objective.protocol() | {"seed": experiment.seed}
        self._experiment, self._mesh, self._sets = experiment, mesh, {"train": train_set, "test": test_set}
        self._conditional = objective.conditional()
        shape = batches.element(test_set, experiment.test.transforms)["image"][0]
        size = experiment.test_batch_size
        self._draw = drawer(objective, mesh, state, shape, size, weak=weak, stop=stop)
        self._stop, self._state = stop, state

    def samples(self, n: int) -> Samples:
        """Return samples 0 … n-1 of the experiment's seed, of all classes in turn where the net has classes."""
        numbers = np.arange(n)
        labels = balanced(numbers, len(self.classes)) if self._conditional else None
        return Samples(self._draw(self._experiment.seed, numbers, labels), labels)

    def rows(self, split: Literal["train", "test"]) -> Samples:
        """Return the real examples as the test pipeline prepares them, pixels as f32 in [-1, 1].

        Of a split of more than 50,000 it is so many, drawn once and for all: they are held in memory.
        """
        found: dict[str, list[np.ndarray]] = {"image": [], "label": []}
        pipeline, examples = self._experiment.test, _some(self._sets[split])
        # Whole on every process: what is measured of them is computed on the host.
        for batch in batches.test_batches(examples, pipeline.transforms, batch_size=256, workers=pipeline.workers):
            for name in found.keys() & batch.keys():
                found[name].append(batch[name][batch["valid"]])
        image = np.asarray(to_float(jnp.asarray(np.concatenate(found["image"]))))
        return Samples(image, np.concatenate(found["label"]) if found["label"] else None)

    def map(self, f: Callable[[jax.Array], jax.Array], images: np.ndarray) -> np.ndarray:
        """Return f of the images, computed in batches of one shape."""
        run = jax.jit(constrained(self._mesh, f), out_shardings=replicated(self._mesh))
        return self._batched(run, images, size=min(len(images), 256))

    def log_likelihood(
        self, images: np.ndarray, label: np.ndarray | None, grid: SamplingSchedule, probes: int
    ) -> np.ndarray:
        """Return ln p of each image in nats, by the probability-flow ODE down the grid.

        Raises UserError where the objective has no such thing.
        """
        objective: Any = self._experiment.objective
        if not hasattr(objective, "log_likelihood"):
            raise UserError(f"{type(objective).__name__} has no likelihood; remove Likelihood from the measures")
        keys = numbered(jax.random.key(self._experiment.seed), jnp.arange(len(images)))

        def one(state: State, images: jax.Array, keys: jax.Array, label: jax.Array | None) -> jax.Array:
            return objective.log_likelihood(state, images, keys, label, grid, probes)

        run = functools.partial(
            jax.jit(constrained(self._mesh, one), out_shardings=replicated(self._mesh)), self._state
        )
        return self._batched(run, images, keys, label, size=self._experiment.test_batch_size)

    def _batched(self, run: Callable[..., jax.Array], *arrays: Any, size: int) -> np.ndarray:
        """Return `run` of the arrays' rows, in batches of one shape: `size`, or what next divides over the devices."""
        parts, n = batch_parts(self._mesh), len(arrays[0])
        size = -(-size // parts) * parts
        found = []
        for begin in range(0, n, size):
            self._stop()
            at = np.arange(begin, begin + size) % n  # the last batch is filled up with rows from the first
            part = jax.device_put(jax.tree.map(lambda x, at=at: x[at], arrays), batch_sharding(self._mesh))
            found.append(jax.device_get(run(*part)))
        return np.concatenate(found)[:n]

    def measure(self) -> dict[str, Any]:
        """Return what the experiment's measures find, ready for JSON, and under `protocol` how they found it."""
        found: dict[str, Any] = {}
        protocol: dict[str, Any] = {}
        for measure in self._experiment.measures:
            new = measure.measure(self)
            protocol |= new.pop("protocol", {})
            if twice := found.keys() & new.keys():
                raise UserError(f"two measures give {', '.join(sorted(twice))}; keep one of them")
            found |= new
        return found | ({"protocol": protocol} if protocol else {})


def with_samples(experiment: Experiment, samples: int | None, inception: pathlib.Path | None) -> Experiment:
    """Return the experiment with measures of this many samples, and with FID for the other Fréchet distances.

    FID is measured on 50,000 samples against the train split, as published ones are, unless `samples` says otherwise.
    Raises UserError if the experiment has no measures of samples, or the weights are no file.
    """
    measures = experiment.measures
    if inception is not None:
        if not isinstance(experiment.objective, Generative):
            raise UserError(f"{type(experiment.objective).__name__} makes no samples, which FID compares with the data")
        if not inception.is_file():
            raise UserError(f"there is no file {inception}; --inception-weights wants a .safetensors file")
        fid = Distribution(features=Inception(weights=str(inception)), samples=50_000, reference="train")
        measures = (fid, *(measure for measure in measures if not isinstance(measure, Distribution)))
    if samples is not None:
        if not any(hasattr(measure, "samples") for measure in measures):
            raise UserError("--samples: this run's config measures no samples")
        measures = tuple(
            dataclasses.replace(measure, samples=samples) if hasattr(measure, "samples") else measure
            for measure in measures
        )
    return dataclasses.replace(experiment, metrics=measures)


def evaluate(run: Restored, weak: State | None = None) -> dict[str, Any]:
    """Evaluate a restored state on its experiment's test data, JSON-ready."""
    experiment = run.experiment
    test_set = experiment.test.source.open()
    with jax.set_mesh(run.mesh):
        measure = evaluator(experiment.objective, run.mesh, experiment.seed)
        sums = measure(run.state, evaluation_batches(experiment.test, test_set, run.mesh, experiment.test_batch_size))
        if sums is None:
            raise UserError("the test data is empty")
        results = accumulators.results(sums, test_set.classes)
        if experiment.measures:
            train_set = experiment.train.source.open()
            results |= SampleEvaluator(experiment, run.mesh, run.state, train_set, test_set, weak=weak).measure()
    return results


def _add(total: Metrics | None, sums: Metrics) -> Metrics:
    host = jax.device_get(sums)
    return accumulators.widen(host) if total is None else accumulators.merge(total, host)
