"""What classifiers of few examples learn from, and how they and the generators of more examples are trained."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Int32, UInt8

from jaxgen import evaluation, sampling
from jaxgen.data.batches import DataSpec, rows_at
from jaxgen.data.source import Examples
from jaxgen.experiment import Experiment
from jaxgen.features import digits_cnn
from jaxgen.features.pixels import Pixels
from jaxgen.metrics import accumulators, fidelity
from jaxgen.metrics.class_accuracy import DIGITS
from jaxgen.parallel.mesh import put_batch
from jaxgen.pictures import sheet
from jaxgen.pictures.pixels import to_float
from jaxgen.program import Program
from jaxgen.state import State
from jaxgen.supervised.mixing import Mixup
from jaxgen.typing import Batch, Example

REAL, NEW = "real", "real + new real"


@dataclasses.dataclass(eq=False)
class Rows:
    """Pictures with labels that are held in memory, as examples."""

    classes: tuple[str, ...]
    image: UInt8[np.ndarray, "n h w c"]
    label: Int32[np.ndarray, " n"]

    @classmethod
    def held(cls, examples: Examples, transforms: Sequence[Any]) -> "Rows":
        """Read all examples, prepared as for an evaluation."""
        rows = rows_at(examples, transforms, range(len(examples)))
        return cls(examples.classes, rows["image"], rows["label"])

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.image[index], "label": self.label[index, ...]}

    def take(self, indices: Int[np.ndarray, " n"]) -> Example:
        return {"image": self.image[indices], "label": self.label[indices]}

    def __add__(self, other: "Rows") -> "Rows":
        image, label = (np.concatenate(pair) for pair in ((self.image, other.image), (self.label, other.label)))
        return Rows(self.classes, image, label)

    def times(self, count: int) -> "Rows":
        return self.take_rows(np.tile(np.arange(len(self)), count))

    def take_rows(self, indices: Int[np.ndarray, " n"]) -> "Rows":
        return Rows(self.classes, **self.take(indices))

    def shuffled(self, seed: int) -> "Rows":
        """Return the same pictures, each with the label of another place."""
        return dataclasses.replace(self, label=np.random.default_rng(seed).permutation(self.label))


@dataclasses.dataclass(frozen=True)
class Opened:
    """A source that is open already: shots are drawn of it many times, and it is read once."""

    examples: Examples

    def open(self) -> Examples:
        return self.examples


@dataclasses.dataclass(frozen=True)
class Arm:
    """What a classifier learns from."""

    rows: Rows
    classical: bool = False


def arms_of_real(shots: Rows, new: Rows) -> dict[str, Arm]:
    """Return the arms without a generator; `new` are real pictures, a whole multiple of the shots."""
    return {
        REAL: Arm(shots),
        "real + classical": Arm(shots, classical=True),
        "real + duplicated real": Arm(shots.times(1 + len(new) // len(shots))),
        NEW: Arm(shots + new),
    }


def arms_of_generated(shots: Rows, generated: Rows, seed: int) -> dict[str, Arm]:
    """Return the arms of one generator."""
    return {
        "real + generated": Arm(shots + generated),
        "real + classical + generated": Arm(shots + generated, classical=True),
        "generated only": Arm(generated),
        "real + generated, labels shuffled": Arm(shots + generated.shuffled(seed)),
    }


# --- training ---------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Trainer:
    """One experiment, trained on any rows of one shape and with any seed: what is compiled, is compiled once."""

    program: Program
    init: Callable[..., State]
    step: Callable[..., State]

    @classmethod
    def of(cls, experiment: Experiment, rows: Rows, devices: Any = None) -> "Trainer":
        """Lay the experiment out for rows like these. Raises UserError where they do not fit."""
        program = Program.of(experiment, DataSpec.of(rows, experiment.train.transforms), devices)
        objective, spec = program.objective, program.spec

        def init(seed: jax.Array) -> State:
            return objective.init(jax.random.key(seed), spec)

        def step(state: State, batch: Batch, seed: jax.Array) -> State:  # as Program.step, but for the seed
            key = jax.random.fold_in(jax.random.key(seed), state.step + 1)
            return objective.step(state, batch, key)[0]

        return cls(program, program.map(init), program.map(step))

    def train(self, rows: Rows, seed: int) -> State:
        """Train to the end of the experiment's steps."""
        seeded = dataclasses.replace(self.program, experiment=dataclasses.replace(self.program.experiment, seed=seed))
        state = self.init(np.uint32(seed))
        for batch in seeded.host_batches(rows):
            state = self.step(state, put_batch(self.program.mesh, batch), np.uint32(seed))
        return state


class Classifiers:
    """The classifier of a config, without augmentation and with the classical one, and its accuracy on test rows."""

    def __init__(self, config: Experiment, rows: Rows, test: Rows, devices: Any = None):
        objective: Any = config.objective
        mixed = dataclasses.replace(config, objective=dataclasses.replace(objective, mixing=Mixup()))
        prepared = dataclasses.replace(config, train=dataclasses.replace(config.train, transforms=()))
        pair = {False: prepared, True: mixed}
        self._trainers = {classical: Trainer.of(experiment, rows, devices) for classical, experiment in pair.items()}
        # The test rows are prepared already.
        plain = dataclasses.replace(prepared, test=dataclasses.replace(config.test, transforms=()))
        self._tester = dataclasses.replace(self._trainers[False].program, experiment=plain)
        self._test = test

    def accuracy(self, arm: Arm, seed: int) -> float:
        """Train on an arm and return the share of test rows that are read right."""
        state = self._trainers[arm.classical].train(arm.rows, seed)
        batches = evaluation.evaluation_batches(self._tester, self._test)
        total = evaluation.sums(self._tester, state, batches)
        assert total is not None  # nothing stops it
        return accumulators.results(total, self._test.classes)["accuracy"]


def generated(trainer: Trainer, shots: Rows, count: int, seed: int) -> Rows | None:
    """Train a generator on the shots and draw so many samples, of all classes in turn; None where it diverged."""
    state = trainer.train(shots, seed)
    numbers = np.arange(count, dtype=np.int32)
    label = sampling.balanced(numbers, len(shots.classes))
    image = sampling.draw(trainer.program, state, numbers, seed, condition={"label": label})
    return Rows(shots.classes, sheet.to_bytes(image), label) if np.isfinite(image).all() else None


class Eye:
    """What is known of added rows beside what they do: read-back where they are digits, and recall of the test rows."""

    def __init__(self, program: Program, test: Rows):
        digits = test.classes == DIGITS and test.image.shape[1:] == digits_cnn.SHAPE
        features = digits_cnn.DigitsCnn() if digits else Pixels()
        self._features = program.map(features.extractor())
        self._classifier = program.map(digits_cnn.DigitsCnn().classifier()) if digits else None
        self._test = np.asarray(self._features(to_float(jnp.asarray(test.image))))

    def sees(self, rows: Rows) -> dict[str, float | None]:
        image = to_float(jnp.asarray(rows.image))
        recall = fidelity.precision_recall(self._test, np.asarray(self._features(image)), k=5)[1]
        if self._classifier is None:
            return {"read_back": None, "recall": recall}
        right = np.asarray(self._classifier(image)).argmax(-1) == rows.label
        return {"read_back": float(right.mean()), "recall": recall}
