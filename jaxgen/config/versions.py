"""The versions of what decides a run's numbers."""

import importlib.metadata

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


def versions() -> dict[str, str]:
    """Return the installed version of each package."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}
