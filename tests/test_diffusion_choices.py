"""The tables of what can be chosen by name hold every solver, sampling schedule and guidance that there is."""

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable

import pytest

import jaxgen.diffusion
from jaxgen.diffusion.choices import GUIDANCE, SCHEDULES, SOLVERS
from jaxgen.diffusion.guidance import Guidance
from jaxgen.diffusion.sampling_schedules import SamplingSchedule
from jaxgen.diffusion.solvers import Solver


def values(belongs: Callable[[type], bool]) -> dict[str, type]:
    """The public frozen dataclasses of the package that can be made, and belong."""
    modules = [
        importlib.import_module(f"jaxgen.diffusion.{module.name}")
        for module in pkgutil.iter_modules(jaxgen.diffusion.__path__)
    ]
    return {
        name: item
        for module in modules
        for name, item in vars(module).items()
        if not name.startswith("_")
        and inspect.isclass(item)
        and item.__module__ == module.__name__
        and dataclasses.is_dataclass(item)
        and not inspect.isabstract(item)
        and belongs(item)
    }


@pytest.mark.parametrize(
    ("table", "belongs"),
    [
        (SOLVERS, lambda item: issubclass(item, Solver)),
        (SCHEDULES, lambda item: issubclass(item, SamplingSchedule)),
        (GUIDANCE, lambda item: issubclass(item, Guidance)),
    ],
    ids=["solvers", "schedules", "guidance"],
)
def test_a_table_holds_every_class_of_its_kind(table: dict[str, type], belongs: Callable[[type], bool]) -> None:
    assert table == values(belongs)
    assert list(table) == sorted(table)
