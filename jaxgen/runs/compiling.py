"""What a run compiles ahead, in a thread beside the training, and how long the same took on this machine before."""

import contextlib
import hashlib
import pathlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

from jaxgen.errors import UserError
from jaxgen.parallel.on_mesh import OnMesh
from jaxgen.program import Program
from jaxgen.runs.files import read_json, write_json

RECORD = "jaxgen_seconds.json"  # in the folder of compiled programs, whose fate it shares
MOST = 500  # programs in the record
WORTH = 2.0  # seconds from which on it is said how long it takes


class Compiling:
    """The programs of a run, compiled one after another in the order in which they are begun.

    One at a time: the compiler of a CPU uses all cores for one program, and the first step waits for the first of them.
    """

    def __init__(self, stack: contextlib.ExitStack, program: Program, say: Callable[[str], None]) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="compiler")
        # A run that is stopped says so at once; its process ends when the compiler is done with the one it is at.
        stack.callback(self._threads.shutdown, wait=False, cancel_futures=True)
        self._say = say
        experiment = program.experiment
        nets = sorted(type(learner.module).__name__ for learner in experiment.objective.learners.values())
        platform = program.mesh.devices.flat[0].device_kind
        self._kind = f"{type(experiment.objective).__name__} of {', '.join(nets)} on {program.mesh.size} x {platform}"
        whole = repr((experiment.objective, experiment.batch_size, experiment.test_batch_size, program.data.element))
        self._exact = f"{self._kind}, {hashlib.sha256(whole.encode()).hexdigest()[:16]}"
        self._under_way: dict[str, Future[tuple[float, float]]] = {}

    def begin(self, name: str, function: OnMesh[..., Any], *args: Any) -> None:
        """Compile a function for these arguments, or shapes, after those that were begun before."""
        self._under_way[name] = function.compile_ahead(self._threads, *args)

    def wait(self, name: str) -> None:
        """Wait until a program is there, and say so if it is not; an error in it is raised where it is called."""
        if (future := self._under_way.pop(name, None)) is None:
            return
        if not future.done():
            self._say(f"compiling the {name}{self._usually(name)}")
        if future.exception() is None:
            self._remember(name, *future.result())

    def _usually(self, name: str) -> str:
        seconds = _record().get(f"{self._exact}, {name}") or _record().get(f"{self._kind}, {name}") or 0.0
        return f" (usually {seconds:.0f} s)" if seconds >= WORTH else ""

    def _remember(self, name: str, traced: float, compiled: float) -> None:
        """Keep the seconds: of a program that is new here, for those of its kind; next time it is traced only."""
        known, path = _record(), _path()
        if path is None:
            return
        exact, kind = f"{self._exact}, {name}", f"{self._kind}, {name}"
        new = {exact: traced + compiled} if exact in known else {exact: traced, kind: traced + compiled}
        known = {key: value for key, value in known.items() if key not in new} | new
        with contextlib.suppress(OSError):  # what cannot be kept is not said next time
            write_json(path, dict(list(known.items())[-MOST:]))


def _path() -> pathlib.Path | None:
    folder = jax.config.jax_compilation_cache_dir
    return pathlib.Path(folder) / RECORD if folder and "://" not in folder and pathlib.Path(folder).is_dir() else None


def _record() -> dict[str, float]:
    path = _path()
    if path is None or not path.exists():
        return {}
    try:
        found = read_json(path)
    except UserError:  # half written by two runs at once, or by nobody that we know
        return {}
    return {k: v for k, v in found.items() if isinstance(v, float)} if isinstance(found, dict) else {}
