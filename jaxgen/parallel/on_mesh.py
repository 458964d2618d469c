"""A compiled function on its mesh, which may be compiled ahead, in another thread, while other work goes on."""

import dataclasses
import time
from concurrent.futures import Executor, Future, wait
from typing import Any

import jax
from jax.sharding import Mesh


@dataclasses.dataclass(frozen=True)
class OnMesh[**P, R]:
    """A jitted function that runs under its mesh."""

    mesh: Mesh
    function: Any  # what jax.jit returned
    ahead: list[Future[tuple[float, float]]] = dataclasses.field(default_factory=list, repr=False, compare=False)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        self.wait()
        with jax.set_mesh(self.mesh):
            return self.function(*args, **kwargs)

    def lower(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Trace and lower the function for these arguments, or shapes."""
        with jax.set_mesh(self.mesh):
            return self.function.lower(*args, **kwargs)

    def compile_ahead(self, threads: Executor, *args: Any) -> Future[tuple[float, float]]:
        """Begin to compile for these arguments, or shapes, in another thread; calls wait for it, and find it done.

        The result is the seconds that it took to trace and lower, and those in the compiler.
        """
        self.ahead.append(threads.submit(self._compile, *args))
        return self.ahead[-1]

    def wait(self) -> None:
        """Wait for what is being compiled ahead. What failed there, the call tries again, and raises it."""
        wait(self.ahead)
        self.ahead.clear()

    def _compile(self, *args: Any) -> tuple[float, float]:
        begin = time.perf_counter()
        with jax.set_mesh(self.mesh):
            lowered = self.function.lower(*args)
        between = time.perf_counter()
        lowered.compile()  # jit keeps what is compiled, for the call with arguments of these shapes and shardings
        return between - begin, time.perf_counter() - between
