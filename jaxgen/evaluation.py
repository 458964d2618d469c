"""Evaluation: sums over batches on the device, added up exactly on the host, divided once at the end."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data import batches
from jaxgen.data.source import Examples
from jaxgen.errors import UserError
from jaxgen.metrics import accumulators
from jaxgen.metrics.view import Samples
from jaxgen.noise import numbered
from jaxgen.objective import Metrics
from jaxgen.parallel.mesh import batch_parts, process_rows, put_batch
from jaxgen.pictures.pixels import to_float
from jaxgen.program import Program
from jaxgen.sampling import asked, draw, in_batches
from jaxgen.state import State
from jaxgen.typing import Example

REAL = 50_000  # real examples that samples are compared with, at most


def sums(
    program: Program,
    state: State,
    batches: Iterable[dict[str, np.ndarray]],
    stop: Callable[[], bool] = lambda: False,
) -> Metrics | None:
    """Return the objective's sums over host batches; it compiles once for each shape of batch.

    Returns None if `stop` turned true on the way: a part of the data says nothing about the whole.
    """
    total: Metrics | None = None
    pending: Any = None
    for batch in batches:
        if stop():
            return None
        new = program.evaluate(state, put_batch(program.mesh, batch))
        if pending is not None:  # read one batch late, so that the device never waits for the host
            total = _add(total, pending)
        pending = new
    return None if pending is None else _add(total, pending)


def evaluation_batches(
    program: Program, examples: Examples, size: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Return every test example once, in batches of `test_batch_size` (or `size`), or what next divides over devices.

    Of each batch a process gets the rows that its devices hold.
    """
    mesh, pipeline = program.mesh, program.experiment.test
    size = size or program.experiment.test_batch_size
    size = -(-size // batch_parts(mesh)) * batch_parts(mesh)
    return batches.test_batches(
        examples,
        pipeline.transforms,
        batch_size=size,
        rows=process_rows(mesh, size),
        workers=pipeline.workers,
    )


def evaluate(program: Program, state: State, guide: State | None = None) -> dict[str, Any]:
    """Evaluate a state on its experiment's test data and, where the experiment has metrics of samples, by these.

    The result is ready for JSON. Raises UserError where there is no test data.
    """
    experiment = program.experiment
    test_set = experiment.test.source.open()
    total = sums(program, state, evaluation_batches(program, test_set))
    if total is None:
        raise UserError("the test data is empty")
    results = accumulators.results(total, test_set.classes)
    if experiment.metrics:
        train_set = experiment.train.source.open()
        results |= SampleEvaluator(program, state, train_set, test_set, guide=guide).measure()
    return results


class _Part:
    """A part of the examples."""

    def __init__(self, examples: Examples, chosen: np.ndarray):
        self.classes = examples.classes
        self._examples, self._chosen = examples, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Example:
        return self._examples[int(self._chosen[index])]


def _at_most(examples: Examples, n: int) -> Examples:
    if len(examples) <= n:
        return examples
    return _Part(examples, np.sort(np.random.default_rng(0).permutation(len(examples))[:n]))


class SampleEvaluator:
    """Samples of one state and the real examples: what an experiment's metrics look at (`metrics.view.View`)."""

    def __init__(
        self,
        program: Program,
        state: State,
        train_set: Examples,
        test_set: Examples,
        *,
        guide: State | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._program, self._state, self._guide, self._stop = program, state, guide, stop
        self._sets = {"train": train_set, "test": test_set}
        # Samples have the shape of the test examples, whatever training crops.
        element = batches.DataSpec.of(test_set, program.experiment.test.transforms)
        self._sampled = dataclasses.replace(program, data=element)
        self.classes = test_set.classes
        self.protocol = program.generative.protocol() | {"seed": program.experiment.seed}

    def samples(self, n: int) -> Samples:
        """Return samples 0 … n-1 of the experiment's seed, of all classes in turn where the net has classes."""
        numbers = np.arange(n)
        condition = asked(self._sampled, numbers, lambda: self._sets["test"])
        image = draw(
            self._sampled, self._state, numbers, self._program.experiment.seed,
            condition=condition, guide=self._guide, stop=self._stop,
        )  # fmt: skip
        return Samples(image, condition.get("label"))

    def rows(self, split: Literal["train", "test"]) -> Samples:
        """Return the real examples as the test pipeline prepares them, pixels as f32 in [-1, 1].

        Of a split of more than 50,000 it is so many, drawn once and for all: they are held in memory.
        """
        columns: dict[str, list[np.ndarray]] = {"image": [], "label": []}
        pipeline, examples = self._program.experiment.test, _at_most(self._sets[split], REAL)
        # Whole on every process: what is measured of them is computed on the host.
        for batch in batches.test_batches(examples, pipeline.transforms, batch_size=256, workers=pipeline.workers):
            for name in columns.keys() & batch.keys():
                columns[name].append(batch[name][batch["valid"]])
        image = np.asarray(to_float(jnp.asarray(np.concatenate(columns["image"]))))
        return Samples(image, np.concatenate(columns["label"]) if columns["label"] else None)

    def map(self, f: Callable[[jax.Array], jax.Array], images: np.ndarray) -> np.ndarray:
        """Return f of the images, computed in batches of one shape."""
        program = self._program
        return in_batches(program.mesh, program.map(f), images, size=min(len(images), 256), stop=self._stop)

    def log_likelihood(
        self,
        images: np.ndarray,
        label: np.ndarray | None,
        *,
        steps: int,
        sigma_min: float | None,
        sigma_max: float | None,
        probes: int,
    ) -> np.ndarray:
        """Return ln p of each image in nats, by the probability-flow ODE.

        Raises UserError where the objective has no likelihood.
        """
        program = self._program
        run = program.likelihood(steps=steps, sigma_min=sigma_min, sigma_max=sigma_max, probes=probes)
        keys = numbered(jax.random.key(program.experiment.seed), jnp.arange(len(images)))
        condition = {} if label is None else {"label": label}

        def one(image: jax.Array, keys: jax.Array, condition: Any) -> jax.Array:
            return run(self._state, image, keys, condition)

        size = program.experiment.test_batch_size
        return in_batches(program.mesh, one, images, keys, condition, size=size, stop=self._stop)

    def measure(self) -> dict[str, Any]:
        """Return what the experiment's metrics find, ready for JSON, and under `protocol` how they found it."""
        results: dict[str, Any] = {}
        protocol: dict[str, Any] = {}
        for metric in self._program.experiment.metrics:
            new = metric.measure(self)
            protocol |= new.pop("protocol", {})
            if twice := results.keys() & new.keys():
                raise UserError(f"two metrics give {', '.join(sorted(twice))}; keep one of them")
            results |= new
        return results | ({"protocol": protocol} if protocol else {})


def _add(total: Metrics | None, new: Metrics) -> Metrics:
    host = jax.device_get(new)
    return accumulators.widen(host) if total is None else accumulators.merge(total, host)
