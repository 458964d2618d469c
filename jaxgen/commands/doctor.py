"""What this machine has for jaxgen, what it lacks, and how to get it."""

import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from typing import Any

import jax

from jaxgen.runs.folder import PACKAGES

# extra -> (a module that it brings, what it is for)
EXTRAS = {
    "cuda": ("jax_cuda13_plugin", "NVIDIA GPUs"),
    "tpu": ("libtpu", "TPUs"),
    "plan": ("libtpu", "compiling for a TPU that is not here"),
    "prepare": ("tensorflow", "preparing TFDS data sets that need TensorFlow; reading them does not"),
}


def examine() -> dict[str, Any]:
    """Collect versions, devices, folders and extras, JSON-ready."""
    data = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return {
        "python": sys.version.split()[0],
        "packages": {name: importlib.metadata.version(name) for name in ("jaxgen", *PACKAGES)},
        "backend": jax.default_backend(),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "compilation_cache": jax.config.jax_compilation_cache_dir,
        "data_folder": str(data),
        "prepared": sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else [],
        "extras": {name: importlib.util.find_spec(module) is not None for name, (module, _) in EXTRAS.items()},
    }


def lines(found: dict[str, Any]) -> list[str]:
    """Say it for a person."""
    rows = [
        f"python {found['python']}  " + "  ".join(f"{name} {version}" for name, version in found["packages"].items()),
        f"devices: {len(found['devices'])} ({found['backend']}): {', '.join(found['devices'][:8])}",
        f"processes: {found['processes']}  CPUs: {found['cpus']}",
        f"compilation cache: {found['compilation_cache']}",
        f"data sets in {found['data_folder']}: {', '.join(found['prepared']) or 'none yet'}",
    ]
    for name, there in found["extras"].items():
        rows.append(
            f"extra {name}: " + ("there" if there else f"missing; for {EXTRAS[name][1]}: uv sync --extra {name}")
        )
    return rows
