"""Samples: new examples drawn from a generative objective, each a function of the seed and its number."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int32
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.noise import Towards, numbered
from jaxgen.objective import Generative
from jaxgen.parallel.activations import constrained
from jaxgen.parallel.mesh import batch_parts, batch_sharding, replicated
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import scatter
from jaxgen.runs.restore import Restored
from jaxgen.state import State


@runtime_checkable
class Draw(Protocol):
    """How samples are drawn, by their numbers."""

    def __call__(
        self,
        seed: int,
        numbers: Int32[np.ndarray, " n"],
        labels: Int32[np.ndarray, " n"] | None,
        towards: tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]] | None = None,
    ) -> Float32[np.ndarray, "n *s"]:
        """Return the samples of these numbers, or what lies so far (0..1) on the way to those of others."""
        ...


def sampler(objective: Generative, mesh: Mesh, shape: tuple[int, ...]) -> Any:
    """Return the jitted (state, weak, seed, numbers, labels, others and shares) -> one sample for each number."""

    def generate(
        state: State, weak: State | None, seed: jax.Array, number: jax.Array, label: jax.Array | None, other: Any
    ) -> jax.Array:
        key = jax.random.key(seed)
        towards = None if other is None else Towards(keys=numbered(key, other[0]), share=other[1])
        return objective.generate(state, shape, numbered(key, number), label, weak, towards)

    return jax.jit(constrained(mesh, generate), out_shardings=replicated(mesh))


def drawer(
    objective: Generative,
    mesh: Mesh,
    state: State,
    shape: tuple[int, ...],
    batch_size: int,
    *,
    weak: State | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Draw:
    """Return a function that makes samples in batches, each batch one compiled call over the whole mesh.

    `stop` is called before each batch and may raise to leave.
    """
    parts = batch_parts(mesh)
    placed, whole = batch_sharding(mesh), replicated(mesh)
    run = sampler(objective, mesh, shape)

    def draw(
        seed: int,
        numbers: np.ndarray,
        labels: np.ndarray | None,
        towards: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> np.ndarray:
        size = -(-min(batch_size, len(numbers)) // parts) * parts
        rows = []
        for begin in range(0, len(numbers), size):
            stop()
            part = jax.tree.map(lambda x, at=begin: np.resize(x[at : at + size], size), (numbers, labels, towards))
            number, label, other = jax.device_put(part, placed)
            made = run(state, weak, jax.device_put(np.uint32(seed), whole), number, label, other)
            rows.append(jax.device_get(made)[: len(numbers) - begin])
        return np.concatenate(rows)

    return draw


def balanced(numbers: np.ndarray, classes: int) -> np.ndarray:
    """Return a class for each sample number: all classes in turn."""
    return (numbers % classes).astype(np.int32)


def sample(
    run: Restored,
    n: int,
    seed: int,
    out: pathlib.Path,
    npz: pathlib.Path | None,
    *,
    weak: Restored | None,
    label: int | None,
) -> dict[str, Any]:
    """Draw samples 0 … n-1 of a run, write a picture of them and, with `npz`, their values.

    Raises UserError if the run's objective draws none, the class is not there, or a file cannot be written, before
    anything is computed.
    """
    objective = _checked(run, {"n": n}, seed, label, (out, npz))
    numbers = np.arange(n, dtype=np.int32)
    labels = _labels(run, numbers, label)
    made = _drawn(run, weak, seed, numbers, labels, None)
    with _writing():
        sheet.save_png(out, grid(made, labels, run.data.classes))
        if npz is not None:
            more: dict[str, Any] = {} if labels is None else {"labels": labels}
            np.savez(npz, samples=made, **more)
    return {"n": n, "seed": seed, "out": str(out), "protocol": objective.protocol()}


def interpolate(
    run: Restored,
    n: int,
    frames: int,
    seed: int,
    out: pathlib.Path,
    *,
    weak: Restored | None,
    label: int | None,
) -> dict[str, Any]:
    """Go from each of samples 0 … n-1 to the next, and from the last to the first, in `frames` steps each.

    A .png shows a row for each way; a .gif moves along them all, round and round. Raises UserError as `sample` does.
    """
    objective = _checked(run, {"n": n, "frames": frames}, seed, label, (out,))
    # A picture's rows end where the next begin; a loop that did so would stand still for a moment.
    moving = out.suffix.lower() == ".gif"
    if moving and len(run.data.element["image"][0]) == 1:
        raise UserError("a film of single points shows nothing; write the ways between them to a .png")
    share = np.tile(np.linspace(0.0, 1.0, frames, endpoint=not moving, dtype=np.float32), n)
    numbers = np.repeat(np.arange(n, dtype=np.int32), frames)
    labels = _labels(run, numbers, label)
    made = _drawn(run, weak, seed, numbers, labels, ((numbers + 1) % n, share))
    with _writing():
        if not moving:
            sheet.save_png(out, grid(made, None, run.data.classes, columns=frames))
        else:
            shown = [Image.fromarray(grid(one[None], None, ())) for one in made]
            shown[0].save(out, save_all=True, append_images=shown[1:], duration=80, loop=0)
    return {"n": n, "frames": frames, "seed": seed, "out": str(out), "protocol": objective.protocol()}


def _checked(
    run: Restored, sizes: dict[str, int], seed: int, label: int | None, paths: Sequence[pathlib.Path | None]
) -> Generative:
    """Return the run's objective if it can be asked for this."""
    objective = run.experiment.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} makes no samples; `jaxgen predict` uses it on images")
    for name, size in sizes.items():
        if size < 1:
            raise UserError(f"--{name} is {size}; it must be at least 1")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is {seed}; it must lie in 0..{2**32 - 1}")
    if label is not None and not objective.conditional():
        raise UserError("this run's net is unconditional: it cannot be asked for a class; drop --label")
    if label is not None and not 0 <= label < len(run.data.classes):
        raise UserError(
            f"--label is {label}; the classes are 0..{len(run.data.classes) - 1}: {', '.join(run.data.classes)}"
        )
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    return objective


def _labels(run: Restored, numbers: np.ndarray, label: int | None) -> np.ndarray | None:
    objective: Any = run.experiment.objective
    if not objective.conditional():
        return None
    return balanced(numbers, len(run.data.classes)) if label is None else np.full(len(numbers), label, np.int32)


def _drawn(
    run: Restored,
    weak: Restored | None,
    seed: int,
    numbers: np.ndarray,
    labels: np.ndarray | None,
    towards: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    objective: Any = run.experiment.objective
    size, shape = run.experiment.test_batch_size, run.data.element["image"][0]
    state = None if weak is None else weak.state
    with jax.set_mesh(run.mesh):
        return drawer(objective, run.mesh, run.state, shape, size, weak=state)(seed, numbers, labels, towards)


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error


def grid(
    samples: np.ndarray, labels: np.ndarray | None, classes: Sequence[str], columns: int | None = None
) -> np.ndarray:
    """Lay samples out in rows, nearly square by default, with their classes beneath; of points, draw where they lie."""
    if samples.ndim == 2:
        return sheet.to_rgb(np.asarray(scatter(jnp.asarray(samples), size=480)))
    if columns is None:
        columns = min(len(samples), 10 if labels is not None else int(np.ceil(np.sqrt(len(samples)))))
    rows = -(-len(samples) // columns)
    blank = np.ones((rows * columns - len(samples), *samples.shape[1:]), samples.dtype)
    images = np.concatenate([samples, blank]).reshape(rows, columns, *samples.shape[1:])
    if labels is None:
        return sheet.sheet(Panels(images=images), ())
    named = np.concatenate([labels, np.full(len(blank), -1, np.int32)]).reshape(rows, columns)
    return sheet.sheet(Panels(images=images, guess=named), tuple(classes))
