"""Tests are stricter than the user's run: eight fake devices, warnings are errors, ranks are never promoted."""

import contextlib
import gc
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

import jax
import pytest

from jaxgen.config import project

# One folder for all processes of one run of the tests, so that none depends on an earlier run. Many tests compile the
# same program; the first process, which starts the workers, tells them and the tests' commands where they are kept.
# .ci/run names a folder for both of its runs.
if (_worker := os.environ.get("PYTEST_XDIST_WORKER", "")) == "":
    _folder = tempfile.TemporaryDirectory(prefix="jaxgen-tests-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{os.environ.get('JAXGEN_TESTS') or _folder.name}/xla"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
_cache = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
# Most of the tests' time goes by in the compiler, also in the commands that they start: they compile without
# optimizations. .ci/run's first commands are compiled as a user's are; 0 compiles the tests so.
_unoptimized = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XDG_STATE_HOME"] = f"{_cache.parent}/state{_worker}"  # what is remembered of projects is not the user's

jax.config.update("jax_platforms", "cpu")  # also where an accelerator, or its compiler, is at hand
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_disable_most_optimizations", _unoptimized != "0")
jax.config.update("jax_compilation_cache_dir", str(_cache))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


SLOW = {*pathlib.Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines()}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    """Mark as slow what slow.txt names: a file, a test, or one case of it that takes three seconds or more.

    Raises UsageError for a line that names no test.
    """
    files, used = set(), set()
    for item in items:
        file = item.path.name
        files.add(file)
        lines = SLOW & {file, f"{file}::{item.originalname}", f"{file}::{item.name}"}
        if lines and not item.get_closest_marker("by_hand"):
            item.add_marker(pytest.mark.slow)
        used |= lines
    lost = [line for line in sorted(SLOW - used) if line.split("::")[0] in files]
    if lost and not any("::" in argument for argument in config.args):
        raise pytest.UsageError(f"tests/slow.txt: there is no {lost[0]}")


def pytest_collection_finish() -> None:
    """Collect garbage less often, and not among modules and tests, which stay: that took a sixth of tracing's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session", autouse=True)
def _bytecode() -> None:
    """Where Python keeps none, let the commands that tests start share theirs: each would compile 1,500 modules."""
    if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
        os.environ.setdefault("PYTHONPYCACHEPREFIX", f"{_cache.parent}/bytecode")


@pytest.fixture(scope="session", autouse=True)
def import_path() -> list[str]:
    """The import path as it was before the first test."""
    _libraries.update(sys.modules)
    return [*sys.path]


_libraries: set[str] = set()  # what is imported before the first test: thousands of modules that are no project's


@contextlib.contextmanager
def _no_projects(import_path: list[str], below: pathlib.Path) -> Iterator[None]:
    """As in a process of its own: no folder of another test is imported from, and none of their modules is known."""
    for name in sys.modules.keys() - _libraries:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(below)):
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
