"""Tests are stricter than the user's run: eight fake devices, warnings are errors, ranks are never promoted."""

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import jax
import pytest

from jaxgen.config import project

jax.config.update("jax_platforms", "cpu")  # also where an accelerator, or its compiler, is at hand
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Many tests compile the same program; one folder for one run of them, so that none depends on an earlier run.
_cache = tempfile.TemporaryDirectory(prefix="jaxgen-tests-")
jax.config.update("jax_compilation_cache_dir", _cache.name)
os.environ["XDG_STATE_HOME"] = _cache.name  # what is remembered of projects is not the user's
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def pytest_configure(config: pytest.Config) -> None:
    """Compile the quick tests without optimizations: most of their time goes by in the compiler.

    The slow tests, and the commands that tests start, are compiled as a user's run is.
    """
    if config.getoption("markexpr") == "not slow":
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session", autouse=True)
def import_path() -> list[str]:
    """The import path as it was before the first test."""
    return [*sys.path]


@contextlib.contextmanager
def _no_projects(import_path: list[str], below: pathlib.Path) -> Iterator[None]:
    """As in a process of its own: no folder of another test is imported from, and none of their modules is known."""
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(below)):
            del sys.modules[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*import_path])
        patch.setattr(project, "_added", [])
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_projects_in_a_module(import_path, tmp_path_factory):
    with _no_projects(import_path, tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(autouse=True)
def _no_projects_in_a_test(import_path, tmp_path_factory):
    with _no_projects(import_path, tmp_path_factory.getbasetemp()):
        yield
