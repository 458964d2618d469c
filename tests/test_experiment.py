"""Experiments as values: they print, compare, survive as JSON, and say in what they differ."""

import dataclasses
import json

import pytest
from small import EXPERIMENTS, classification

from jaxgen.config import codec
from jaxgen.errors import UserError


@pytest.mark.parametrize("make", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_json_brings_an_experiment_back(make):
    made = make()
    text = json.dumps(codec.encode(made))
    assert codec.decode(json.loads(text)) == made
    assert hash(made) == hash(make())


def test_an_objective_always_knows_the_experiments_steps():
    made = classification()
    assert made.objective.steps == made.steps == 12
    assert dataclasses.replace(made, steps=99).objective.steps == 99


def test_differences_name_the_fields_as_the_command_line_does():
    made = classification()
    other = dataclasses.replace(made, seed=7, steps=20)
    net = dataclasses.replace(made.objective.net, dropout=0.3)
    other = dataclasses.replace(other, objective=dataclasses.replace(made.objective, net=net))
    found = codec.differences(codec.encode(made), codec.encode(other))
    assert sorted(found) == ["objective.net.dropout: 0.2 -> 0.3", "seed: 0 -> 7", "steps: 12 -> 20"]
    assert codec.differences(codec.encode(made), codec.encode(made)) == []


def test_another_class_is_a_difference():
    made = classification()
    fewer = dataclasses.replace(made, train=dataclasses.replace(made.train, transforms=()))
    found = codec.differences(codec.encode(made), codec.encode(fewer))
    assert any("transforms" in line and "Flip" in line for line in found)


def test_describe_is_the_expression_that_makes_it():
    import jaxgen.average
    import jaxgen.objectives.mixing
    from small import Cnn, Cosine, Experiment, Flip, Optimizer, Pipeline  # noqa: F401

    import jaxgen.data.fake
    import jaxgen.objectives.classification
    import jaxgen.optim
    import jaxgen.parallel.mesh
    import jaxgen.parallel.rules
    import jaxgen.supervised.mixing

    names = dict(globals())
    for module in (
        jaxgen.optim.ema, jaxgen.data.fake, jaxgen.objectives.classification, jaxgen.supervised.mixing,
        jaxgen.optim.optimizer, jaxgen.optim.schedules, jaxgen.parallel.mesh, jaxgen.parallel.rules,
    ):  # fmt: skip
        names |= vars(module)
    names |= {"Experiment": Experiment, "Cnn": Cnn, "Flip": Flip, "Pipeline": Pipeline}
    assert eval(codec.describe(classification()), names) == classification()


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("batch_size", -1), ("seed", -3), ("checkpoint_every", 0)])
def test_impossible_numbers_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"--{field.replace('_', '-')} is {value}; it must be at least"):
        dataclasses.replace(classification(), **{field: value})


def test_what_cannot_be_written_down_is_refused():
    with pytest.raises(UserError, match="function"):
        codec.encode(lambda x: x)


def test_a_run_of_other_code_says_so():
    data = codec.encode(classification())
    data["objective"]["net"]["no_such_field"] = 3
    with pytest.raises(UserError, match=r"made by other code.*Cnn"):
        codec.decode(data)
