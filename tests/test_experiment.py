"""Experiments as values: they print, compare, survive as JSON, and say in what they differ."""

import dataclasses
import json
import math
import pathlib
import sys

import pytest
from small import EXPERIMENTS, classification, gan

from jaxgen.config import catalogue, codec, expression, files, overrides
from jaxgen.errors import UserError


@pytest.mark.parametrize("make", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_json_brings_an_experiment_back(make):
    made = make()
    text = json.dumps(codec.encode(made))
    assert codec.decode(json.loads(text)) == made
    assert hash(made) == hash(make())


def test_an_objective_always_knows_the_experiments_steps():
    made = classification()
    assert made.objective.total_steps == made.steps == 12
    assert dataclasses.replace(made, steps=99).objective.total_steps == 99


def test_differences_name_the_fields_as_the_command_line_does():
    made = classification()
    other = dataclasses.replace(made, seed=7, steps=20)
    module = dataclasses.replace(made.objective.net.module, dropout=0.3)
    net = dataclasses.replace(made.objective.net, module=module)
    other = dataclasses.replace(other, objective=dataclasses.replace(made.objective, net=net))
    found = codec.differences(codec.encode(made), codec.encode(other))
    assert sorted(found) == ["objective.net.module.dropout: 0.2 -> 0.3", "seed: 0 -> 7", "steps: 12 -> 20"]
    assert codec.differences(codec.encode(made), codec.encode(made)) == []


def test_another_class_is_a_difference():
    made = classification()
    fewer = dataclasses.replace(made, train=dataclasses.replace(made.train, transforms=()))
    found = codec.differences(codec.encode(made), codec.encode(fewer))
    assert any("transforms" in line and "Flip" in line for line in found)


@pytest.mark.parametrize("make", EXPERIMENTS.values(), ids=EXPERIMENTS.keys())
def test_describe_is_the_expression_that_makes_it(make):
    made = make()
    text = codec.describe(made)
    assert eval(text, {**_classes(made), "inf": math.inf}) == made
    assert expression.value(text, _classes(made)) == made  # the command line reads what is printed


def _classes(value):
    """The classes in a value, by name."""
    if isinstance(value, tuple):
        return {name: kind for item in value for name, kind in _classes(item).items()}
    if not dataclasses.is_dataclass(value):
        return {}
    inner = [_classes(getattr(value, field.name)) for field in codec.fields_of(type(value))]
    return {type(value).__name__: type(value)} | {name: kind for found in inner for name, kind in found.items()}


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("batch_size", -1), ("seed", -3), ("checkpoint_every", 0)])
def test_impossible_numbers_are_refused_by_name(field, value):
    with pytest.raises(UserError, match=f"--{field.replace('_', '-')} is {value}; it must be at least"):
        dataclasses.replace(classification(), **{field: value})


def test_what_cannot_be_written_down_is_refused():
    with pytest.raises(UserError, match="function"):
        codec.encode(lambda x: x)


def test_a_run_of_other_code_says_so():
    data = codec.encode(classification())
    data["objective"]["net"]["module"]["no_such_field"] = 3
    with pytest.raises(UserError, match=r"made by other code.*Cnn"):
        codec.decode(data)


# --- the command line changes fields ---------------------------------------------------------------------------------


def test_overrides_reach_into_learners():
    made = classification()
    changed = overrides.override(
        made,
        ["--objective.net.module.hidden", "5", "6", "--objective.net.optimizer.learning-rate.peak", "0.1",
         "--objective.net.ema.0.decay", "0.5", "--seed", "3"],
        prog="test",
    )  # fmt: skip
    assert codec.differences(codec.encode(made), codec.encode(changed)) == [
        "objective.net.module.hidden: [16] -> [5, 6]",
        "objective.net.optimizer.learning_rate.peak: 0.01 -> 0.1",
        "objective.net.ema.0.decay: 0.9 -> 0.5",
        "seed: 0 -> 3",
    ]
    changed = overrides.override(gan(), ["--objective.discriminator.optimizer.learning-rate.peak", "0.2"], prog="test")
    assert changed.objective.discriminator.optimizer.learning_rate.peak == 0.2
    assert changed.objective.generator == gan().objective.generator


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--objective.net.optimizer.learning-rate.pek", "--objective.net.optimizer.learning-rate.peak"),
        ("--objective.net.optimizer.rate.peak", "--objective.net.optimizer.learning-rate.peak"),
        ("--objective.net.modul.hidden", "--objective.net.module.hidden"),
        ("--objective.net.hidden", "--objective.net.module.hidden"),
        ("--batch-sise", "--batch-size"),
        ("--learning-rate", "--objective.net.optimizer.learning-rate.peak"),
    ],
)
def test_a_mistyped_field_is_answered_by_the_nearest(word, meant):
    with pytest.raises(UserError, match=f"unknown option {word}; perhaps you meant .*{meant}") as caught:
        overrides.override(classification(), [word, "1"], prog="test")
    assert len(str(caught.value).splitlines()) == 1


# --- config files ----------------------------------------------------------------------------------------------------


def test_a_configs_docstring_is_its_summary(tmp_path):
    path = tmp_path / "one.py"
    path.write_text('"""A net\non data.\n\nResult: 3 %\nafter 4 s.\n\nMore.\n"""\n')
    assert catalogue.summary(path) == ("A net on data.", "3 % after 4 s.")
    path.write_text('"""A net.\n\nPromise: 3 %.\n"""\n')
    assert catalogue.summary(path) == ("A net.", "no result")


def test_the_shipped_configs_are_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(catalogue.find()) >= 29
    (tmp_path / "configs" / "mine").mkdir(parents=True)
    (tmp_path / "configs" / "mine" / "own.py").touch()
    assert [str(path) for path in catalogue.find()] == ["configs/mine/own.py"]


def test_a_config_that_fails_names_its_line(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("def config():\n    return 1 / 0\n")
    (tmp_path / "json.py").write_text("def config(): ...\n")
    monkeypatch.chdir(tmp_path)
    for path in (pathlib.Path("broken.py"), tmp_path / "broken.py"):
        with pytest.raises(UserError, match=r"broken\.py, line 2: ZeroDivisionError"):
            files.load(path)
    with pytest.raises(UserError, match=r"config\(\) in json.py returned nothing"):
        files.load(pathlib.Path("json.py"))
    assert sys.modules["json"] is json
