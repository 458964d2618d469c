"""Start the project's commands as a user would, as processes of their own."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parent.parent
TINY = "tests/configs/tiny.py"


def environment(cache: pathlib.Path) -> dict[str, str]:
    return os.environ | {
        "PYTHONPATH": str(ROOT / "tests"),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PLATFORMS": "cpu",
        "COLUMNS": "200",
    }


def start(
    *arguments: str | pathlib.Path,
    cache: pathlib.Path,
    within: Sequence[str] = (),
    cwd: pathlib.Path = ROOT,
    **more: str,
) -> subprocess.Popen[str]:
    """Start Python on the arguments in a folder, where `within` is a command that runs another somewhere."""
    command = [*within, sys.executable, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment(cache) | more, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def call(
    *arguments: str | pathlib.Path, cache: pathlib.Path, cwd: pathlib.Path = ROOT, **more: str
) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, cache=cache, cwd=cwd, **more)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
