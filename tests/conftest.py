"""Tests are stricter than the user's run: eight fake devices, warnings are errors, ranks are never promoted."""

import os
import tempfile

import jax
import pytest

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
