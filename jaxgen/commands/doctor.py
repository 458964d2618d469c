"""`jaxgen doctor`: what this machine has for jaxgen, what it lacks, and how to get it."""

import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from typing import Any

import jax

from jaxgen.commands.output import Parser, print_json
from jaxgen.config import project
from jaxgen.config.versions import versions
from jaxgen.parallel import compiler, huge_pages
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.processes import use_compilation_cache

# extra -> (a module that it brings, what it is for)
EXTRAS = {
    "cuda": ("jax_cuda13_plugin", "NVIDIA GPUs"),
    "tpu": ("libtpu", "TPUs"),
    "plan": ("libtpu", "compiling for a TPU that is not here"),
    "prepare": ("tensorflow", "preparing TFDS data sets that need TensorFlow; reading them does not"),
    "music": ("music21", "chorales, and MIDI files"),
}


def run(prog: str, arguments: list[str]) -> None:
    """Print what is here and what is missing."""
    parser = Parser(prog, "Versions, devices, cache, extras; what is missing and how to get it.").with_json()
    args = parser.parse_args(arguments)
    use_compilation_cache()
    report = examine()
    if args.json:
        return print_json(report)
    print(*lines(report), sep="\n")


def examine() -> dict[str, Any]:
    """Collect versions, devices, folders and extras, JSON-ready."""
    data = pathlib.Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    return {
        "python": sys.version.split()[0],
        "packages": {"jaxgen": importlib.metadata.version("jaxgen")} | versions(),
        "backend": jax.default_backend(),
        "devices": [str(device) for device in jax.devices()],
        "processes": jax.process_count(),
        "cpus": os.cpu_count(),
        "compiler_options": compiler.options(MeshShape().build(jax.devices()[:1])),
        "memory_pages": huge_pages.described(),
        "compilation_cache": jax.config.jax_compilation_cache_dir,
        "data_folder": str(data),
        "prepared": sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else [],
        "extras": {name: importlib.util.find_spec(module) is not None for name, (module, _) in EXTRAS.items()},
    }


def lines(report: dict[str, Any]) -> list[str]:
    """Return it as lines for a person."""
    rows = [
        f"python {report['python']}  " + "  ".join(f"{name} {version}" for name, version in report["packages"].items()),
        f"devices: {len(report['devices'])} ({report['backend']}): {', '.join(report['devices'][:8])}",
        f"processes: {report['processes']}  CPUs: {report['cpus']}",
        f"compiler options: {compiler.explained(report['compiler_options'])}",
        f"memory pages: {report['memory_pages']}",
        f"compilation cache: {report['compilation_cache']}",
        f"data sets in {report['data_folder']}: {', '.join(report['prepared']) or 'none yet'}",
    ]
    checkout = (project.SHIPPED / "pyproject.toml").exists()
    for name, there in report["extras"].items():
        get = f"uv sync --extra {name}" if checkout else f"uv pip install 'jaxgen[{name}]'"
        rows.append(f"extra {name}: " + ("there" if there else f"missing; for {EXTRAS[name][1]}: {get}"))
    return rows
