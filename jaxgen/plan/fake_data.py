"""Fake data of an experiment's shapes, for what can be known without the data: plans, benchmarks, tests."""

import dataclasses

import flax.linen as nn

from jaxgen.adversarial.generator import output_shape
from jaxgen.data.batches import DataSpec, Pipeline
from jaxgen.data.source import Fakeable, Shape, Source
from jaxgen.data.tokenizers import Tokenize
from jaxgen.errors import DataNotFound, UserError
from jaxgen.experiment import Experiment
from jaxgen.nn.interfaces import Generator
from jaxgen.objective import Predictive


def with_data(experiment: Experiment, shape: Shape | None = None) -> tuple[Experiment, str]:
    """Return the experiment and "its own" where its data is on this machine, otherwise with fake data, and "fake".

    `shape` is an image's, for data of which neither the source, nor a net, nor the transforms know it. Raises UserError
    where it is needed and not given, or where the data is here and has a mistake.
    """
    try:
        experiment.train.source.open()
        return experiment, "its own"
    except DataNotFound:
        return with_fake(experiment, shape), "fake"


def with_fake(experiment: Experiment, shape: Shape | None = None, count: int = 16) -> Experiment:
    """Return the experiment on `count` fake examples to train on, and a quarter as many to test."""
    number = max(1, classes(experiment))
    if number == 1 and isinstance(experiment.objective, Predictive):
        number = 2  # which one output tells apart

    def fake(pipeline: Pipeline, shape: Shape, count: int) -> Pipeline:
        source = fakeable(pipeline.source).fake(shape, number, count)
        # The vocabulary may be no more here than the data.
        transforms = tuple(t.fake() if isinstance(t, Tokenize) else t for t in pipeline.transforms)
        return dataclasses.replace(pipeline, source=source, transforms=transforms, workers=0)

    def transformed(shape: Shape) -> Shape:
        pipeline = fake(experiment.train, shape, 1)
        return DataSpec.of(pipeline.source.open(), pipeline.transforms).element["image"][0]

    shape = shape or fakeable(experiment.train.source).shape() or _generated(experiment)
    # Where two sizes become one, the transforms decide it.
    if shape is None and transformed((400, 500, 3)) == transformed((500, 400, 3)):
        shape = (400, 500, 3)
    if shape is None:
        raise UserError(
            "the data is not here, and the config does not say an image's size; add --image HEIGHTxWIDTHxCHANNELS"
        )
    return dataclasses.replace(
        experiment,
        train=fake(experiment.train, shape, count),
        test=fake(experiment.test, shape, max(1, count // 4)),
    )


def classes(experiment: Experiment) -> int:
    """Return the largest number of classes that a learning net has; 0 where none has any."""
    learners = experiment.objective.learners.values()
    found = [getattr(learner.module, "classes", 0) for learner in learners if learner.optimizer is not None]
    return max(found, default=0)


def fakeable(source: Source) -> Fakeable:
    """Return the source, as one that fake data can replace.

    Raises UserError if it is none.
    """
    if not isinstance(source, Fakeable):
        kind = type(source).__name__
        raise UserError(f"{kind} has no `shape` and `fake` (see jaxgen.data.source.Fakeable): its data must be here")
    return source


def _generated(experiment: Experiment) -> Shape | None:
    """Return the shape of what the objective's generator makes, where it has one."""
    for learner in experiment.objective.learners.values():
        module: nn.Module = learner.module
        makes_images = isinstance(module, Generator)  # apart: a checker would take the module for nothing else
        if makes_images:
            return output_shape(module)
    return None
