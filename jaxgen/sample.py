"""Samples: new examples drawn from a generative objective, each a function of the seed and its number."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen import pictures
from jaxgen.objective import Generative, Panels
from jaxgen.parallel.mesh import batch_parts, batch_sharding, replicated
from jaxgen.pixels import scatter
from jaxgen.restored import Restored
from jaxgen.state import State
from jaxgen.typing import UserError

# (seed, numbers i32[n], labels i32[n] or None) -> f32[n *s]
Draw = Callable[[int, np.ndarray, np.ndarray | None], np.ndarray]


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

    def generate(state: State, weak: State | None, seed: jax.Array, number: jax.Array, label: jax.Array | None) -> Any:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), number)
        return objective.generate(state, shape, keys, label, weak)

    run = jax.jit(generate, out_shardings=whole)

    def draw(seed: int, numbers: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        size = -(-min(batch_size, len(numbers)) // parts) * parts
        rows = []
        for begin in range(0, len(numbers), size):
            stop()
            part = [
                np.resize(x[begin : begin + size], size).astype(np.int32) for x in (numbers, labels) if x is not None
            ]
            number, *label = jax.device_put(part, placed)
            made = run(state, weak, jax.device_put(np.uint32(seed), whole), number, label[0] if label else None)
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
    objective = run.experiment.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} makes no samples; `jaxgen predict` uses it on images")
    if n < 1:
        raise UserError(f"--n is {n}; it must be at least 1")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed is {seed}; it must lie in 0..{2**32 - 1}")
    if label is not None and not objective.conditional():
        raise UserError("this run's net is unconditional: it cannot be asked for a class; drop --label")
    if label is not None and not 0 <= label < len(run.data.classes):
        raise UserError(
            f"--label is {label}; the classes are 0..{len(run.data.classes) - 1}: {', '.join(run.data.classes)}"
        )
    for path in (out, npz):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"cannot write {path}: there is no folder {path.parent}")
    numbers = np.arange(n)
    labels = None
    if objective.conditional():
        labels = balanced(numbers, len(run.data.classes)) if label is None else np.full(n, label, np.int32)
    shape = run.data.element["image"][0]
    with jax.set_mesh(run.mesh):
        size = run.experiment.test_batch_size
        state = None if weak is None else weak.state
        made = drawer(objective, run.mesh, run.state, shape, size, weak=state)(seed, numbers, labels)
    try:
        pictures.save_png(out, grid(made, labels, run.data.classes))
        if npz is not None:
            more: dict[str, Any] = {} if labels is None else {"labels": labels}
            np.savez(npz, samples=made, **more)
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    return {"n": n, "seed": seed, "out": str(out), "protocol": objective.protocol()}


def grid(samples: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]) -> np.ndarray:
    """Lay samples out in rows, nearly square, with their classes beneath; of points, draw where they lie."""
    if samples.ndim == 2:
        return pictures.to_rgb(np.asarray(scatter(jnp.asarray(samples), size=480)))
    columns = min(len(samples), 10 if labels is not None else int(np.ceil(np.sqrt(len(samples)))))
    rows = -(-len(samples) // columns)
    blank = np.ones((rows * columns - len(samples), *samples.shape[1:]), samples.dtype)
    images = np.concatenate([samples, blank]).reshape(rows, columns, *samples.shape[1:])
    if labels is None:
        return pictures.sheet(Panels(images=images), ())
    named = np.concatenate([labels, np.full(len(blank), -1, np.int32)]).reshape(rows, columns)
    return pictures.sheet(Panels(images=images, guess=named), tuple(classes))
