"""Evaluation: sums over batches on the device, added up exactly on the host, divided once at the end."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data import batches, identity
from jaxgen.data.source import Examples
from jaxgen.errors import UserError
from jaxgen.metrics import accumulators, outlook
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.view import REAL, Samples, Split
from jaxgen.noise import numbered
from jaxgen.objective import Density, Generative, Metrics, Objective
from jaxgen.parallel.mesh import batch_parts, batch_sharding, process_rows, put_batch
from jaxgen.pictures.pixels import to_float
from jaxgen.program import Program
from jaxgen.progress import Heard, counted, unheard
from jaxgen.sampling import Asked, asked, batch_by_batch, draw_batches, proportional, spread
from jaxgen.state import State
from jaxgen.typing import Example, Spec


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
    program: Program, examples: Examples, size: int | None = None, hear: Heard = unheard
) -> Iterator[dict[str, np.ndarray]]:
    """Yield every test example once, in batches of `test_batch_size` (or `size`), or what next divides over devices.

    Of each batch a process gets the rows that its devices hold. `hear` hears how many examples are done.
    """
    mesh, pipeline = program.mesh, program.experiment.test
    size = divided(program, size or program.experiment.test_batch_size)
    made = batches.test_batches(
        examples,
        pipeline.transforms,
        batch_size=size,
        rows=process_rows(mesh, size),
        workers=pipeline.workers,
    )
    hear("evaluation", 0, len(examples))
    for number, batch in enumerate(made, 1):
        yield batch
        hear("evaluation", min(number * size, len(examples)), len(examples))


def evaluated(program: Program, examples: Examples) -> Spec:
    """Return the shapes of a batch of an evaluation, with shardings.

    Of one example: those that are measured one by one may differ in size.
    """
    row = batches.rows_at(examples, program.experiment.test.transforms, [0])
    size, mesh = divided(program, program.experiment.test_batch_size), program.mesh
    spec = {name: ((size, *array.shape[1:]), array.dtype) for name, array in row.items()}
    spec |= {"valid": ((size,), np.dtype(np.bool_)), "index": ((size,), np.dtype(np.int32))}
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, shape))
        for name, (shape, dtype) in spec.items()
    }


def divided(program: Program, size: int) -> int:
    """Return the size of an evaluation's batch, or what next divides over devices."""
    parts = batch_parts(program.mesh)
    return -(-size // parts) * parts


def evaluate(
    program: Program,
    state: State,
    guide: State | None = None,
    say: Callable[[str], None] = lambda line: None,
    hear: Heard = unheard,
) -> dict[str, Any]:
    """Evaluate a state on its experiment's test data and, where the experiment has metrics of samples, by these.

    The result is ready for JSON; `say` hears where there are more or fewer examples than the run had, and `hear` how
    far it is. Raises UserError where there is no test data, or its classes or channels are not the run's.
    """
    experiment, data = program.experiment, program.data
    test_set = identity.opened(data, experiment.test.source)
    train_set = identity.opened(data, experiment.train.source) if experiment.metrics else None
    check(program, train_set, test_set)
    for line in identity.count_notes(data, training=None if train_set is None else len(train_set), test=len(test_set)):
        say(line)
    total = sums(program, state, evaluation_batches(program, test_set, hear=hear))
    if total is None:
        raise UserError("the test data is empty")
    results = accumulators.results(total, test_set.classes)
    if train_set is not None:
        results |= SampleEvaluator(program, state, train_set, test_set, guide=guide, hear=hear).measure()
    return results


def check(program: Program, train_set: Examples | None, test_set: Examples) -> None:
    """Raise UserError where a state of the program could not be evaluated on these data; nothing is compiled.

    `train_set` may be None where the experiment has no metrics of samples.
    """
    batch = evaluated(program, test_set)
    prepared = {name: (s.shape[1:], s.dtype) for name, s in batch.items() if name not in ("valid", "index")}
    identity.check_channels(program.data, prepared)
    identity.check_words(program.data, program.experiment.train.transforms)
    if program.experiment.metrics and train_set is not None:
        expected = _outlook(program.objective, prepared["image"][0], train_set, test_set)
        outlook.check(program.experiment.metrics, expected)
    try:
        with jax.set_mesh(program.mesh):
            program.evaluate.function.eval_shape(program.shapes, batch)
    except (flax.errors.FlaxError, TypeError, ValueError) as error:
        if prepared["image"] == program.data.element["image"]:  # then it is no matter of sizes
            raise
        before, after = ("x".join(map(str, e["image"][0])) for e in (program.data.element, prepared))
        raise UserError(
            f"the net learns from images of {before} and cannot be measured on test images of {after}\n"
            "give both pipelines transforms that end in one size, such as Resize or CenterCrop"
        ) from error


def _outlook(objective: Objective, shape: tuple[int, ...], train_set: Examples, test_set: Examples) -> Outlook:
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} makes no samples to measure; remove the config's `metrics`")
    return Outlook(
        classes=test_set.classes,
        shape=shape,
        rows={"train": len(train_set), "test": len(test_set)},
        asked_for_class="label" in objective.conditions(),
        has_density=isinstance(objective, Density),
        model=type(objective).__name__,
    )


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
        hear: Heard = unheard,
    ) -> None:
        self._program, self._state, self._guide, self._stop, self._hear = program, state, guide, stop, hear
        self._sets = {"train": train_set, "test": test_set}
        self._drawn: tuple[tuple[int, Split | None], Samples] | None = None  # and how asked for
        self._labels: dict[Split, np.ndarray | None] = {}  # of the splits whose rows were read
        # Samples have the shape of the test examples, whatever training crops.
        element = batches.DataSpec.of(test_set, program.experiment.test.transforms)
        self._sampled = dataclasses.replace(program, data=element)
        self.classes = test_set.classes
        self.protocol = program.generative.protocol() | {"seed": program.experiment.seed}

    def samples(self, n: int, like: Split | None = None) -> Samples:
        """Return samples 0 … n-1 of the experiment's seed, of all classes in turn where the net has classes.

        With `like` they are asked for what the examples of that split have: for its classes, as often as it has them.
        """
        if self._drawn is not None and self._drawn[0] == (n, like):
            return self._drawn[1]
        numbers = np.arange(n)
        condition = self._asked(numbers, like)
        images = draw_batches(
            self._sampled, self._state, numbers, self._program.experiment.seed,
            condition=condition, guide=self._guide, stop=self._stop,
        )  # fmt: skip
        samples = Samples(self._whole(images, "samples", n), condition.get("label"))
        self._drawn = (n, like), samples
        return samples

    def _asked(self, numbers: np.ndarray, like: Split | None) -> Asked:
        if like is None:
            return asked(self._sampled, numbers, lambda: self._sets["test"])
        if self._program.generative.conditions() != ("label",):
            examples = self._sets[like]
            return asked(self._sampled, spread(len(examples), len(numbers)), lambda: examples)
        if like not in self._labels:
            self.rows(like)
        labels = self._labels[like]
        return self._asked(numbers, None) if labels is None else {"label": proportional(labels, len(numbers))}

    def rows(self, split: Split) -> Samples:
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
        label = self._labels[split] = np.concatenate(columns["label"]) if columns["label"] else None
        return Samples(image, label)

    def map(self, f: Callable[[jax.Array], jax.Array], images: np.ndarray) -> np.ndarray:
        """Return f of the images, computed in batches of one shape."""
        program = self._program
        parts = batch_by_batch(program.mesh, program.map(f), images, size=min(len(images), 256), stop=self._stop)
        return self._whole(parts, "features", len(images))

    def _whole(self, parts: Iterator[np.ndarray], what: str, count: int) -> np.ndarray:
        return np.concatenate(list(counted(parts, self._hear, what, count)))

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
        parts = batch_by_batch(program.mesh, one, images, keys, condition, size=size, stop=self._stop)
        return self._whole(parts, "likelihoods", len(images))

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
