"""Fake data of an experiment's shape, for what can be known without the data: plans, benchmarks, tests."""

import dataclasses
from typing import Any

import jax

from jaxgen.adversarial.game import blank
from jaxgen.data import batches
from jaxgen.data.augment import Unlabelled
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeLabels, FakeLatents, FakeMasks
from jaxgen.data.latents import Latents
from jaxgen.data.mixture import Mixture
from jaxgen.data.source import Source
from jaxgen.data.tfds import Tfds
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment

Size = tuple[int, int, int]  # height, width and channels of the pictures as the data set has them


def with_data(experiment: Experiment, size: Size | None = None) -> tuple[Experiment, str]:
    """Return the experiment and "its own" where its data is here, and otherwise with fake data, and "fake".

    `size` is the pictures', where the transforms fix none and nothing else tells. Raises UserError if it is needed.
    """
    try:
        experiment.train.source.open()
        return experiment, "its own"
    except UserError:
        return with_fake(experiment, size), "fake"


def with_fake(experiment: Experiment, size: Size | None = None, count: int = 16) -> Experiment:
    """Return the experiment on `count` fake examples of its data's shape."""
    kind = experiment.train.source
    if isinstance(kind, Mixture):  # makes its points by itself
        fewer = dataclasses.replace(experiment.train, source=dataclasses.replace(kind, size=count))
        return dataclasses.replace(experiment, train=fewer)

    def made(size: Size, count: int) -> Source:
        height, width, channels = size
        fake: Any = FakeLatents if isinstance(kind, Latents) else FakeMasks if _segments(experiment) else FakeLabels
        return fake(height=height, width=width, channels=channels, classes=classes(experiment) or 1, size=count)

    # A source that reads no labels is, on fake data, one whose labels are dropped.
    dropped = () if getattr(kind, "label", "label") else (Unlabelled(),)

    def pipeline(given: Pipeline, size: Size, count: int) -> Pipeline:
        transforms = (*dropped, *given.transforms)
        return dataclasses.replace(given, source=made(size, count), transforms=transforms, workers=0)

    def shape(size: Size) -> tuple[int, ...]:
        trained = pipeline(experiment.train, size, 1)
        return batches.element(trained.source.open(), trained.transforms)["image"][0]

    size = size or _size(experiment)
    # Where two sizes become one, the transforms decide it.
    if size is None and shape((400, 500, 3)) == shape((500, 400, 3)):
        size = (400, 500, 3)
    if size is None:
        raise UserError(
            "the data is not here, and neither the config nor the net tells its size; say --image HEIGHTxWIDTHxCHANNELS"
        )
    return dataclasses.replace(
        experiment,
        train=pipeline(experiment.train, size, count),
        test=pipeline(experiment.test, size, max(1, count // 4)),
    )


def classes(experiment: Experiment) -> int:
    """How many classes the experiment's nets tell apart; 0 for those that are told none."""
    objective: Any = experiment.objective
    return int(objective.classes if hasattr(objective, "classes") else objective.net.classes)


def _segments(experiment: Experiment) -> bool:
    return hasattr(experiment.objective, "inference")


def _size(experiment: Experiment) -> Size | None:
    """The pictures' size where the source or the net tells it."""
    source, objective = experiment.train.source, experiment.objective
    if isinstance(source, Latents):
        return (32, 32, 4)
    generator: Any = getattr(objective, "generator", None)
    if generator is not None:
        made = jax.eval_shape(lambda: generator.init_with_output(jax.random.key(0), *blank(generator), train=False)[0])
        return made.shape[1:]
    return source.shape() if isinstance(source, Tfds) else None
