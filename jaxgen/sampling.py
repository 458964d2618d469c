"""Samples: new examples drawn from a generative objective, each a function of the seed and its number."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int

from jaxgen.data import batches
from jaxgen.data.source import Examples
from jaxgen.parallel.mesh import batch_parts, batch_sharding, replicated
from jaxgen.program import Program
from jaxgen.state import State

Numbers = Int[np.ndarray, " n"]
Asked = dict[str, np.ndarray]  # a Condition on the host: the arrays, a row for each sample, as they lie in a batch


def draw(
    program: Program,
    state: State,
    numbers: Sequence[int] | Numbers,
    seed: int = 0,
    *,
    condition: Asked | None = None,
    towards: tuple[Numbers, Float32[np.ndarray, " n"]] | None = None,
    guide: State | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Float32[np.ndarray, "n *s"]:
    """Return the samples of these numbers, in batches of `test_batch_size`, each one compiled call over the mesh.

    `condition` has a row for each sample; by default what `asked` returns. With `towards` = (other numbers, share) the
    noise of each sample lies that far (0..1) on the way to another's. `guide` is the state of the guiding model. `stop`
    is called before each batch and may raise to leave.

    Raises UserError if the objective makes no samples.
    """
    numbers = np.asarray(numbers, np.int32)
    if condition is None:
        condition = asked(program, numbers, lambda: program.experiment.test.source.open())
    run = program.sample
    seed_there = jax.device_put(np.uint32(seed), replicated(program.mesh))

    def one(number: jax.Array, condition: Any, towards: Any) -> jax.Array:
        return run(state, guide, seed_there, number, condition, towards)

    size = min(program.experiment.test_batch_size, len(numbers))
    return in_batches(program.mesh, one, numbers, condition, towards, size=size, stop=stop)


def asked(program: Program, numbers: Numbers, examples: Callable[[], Examples]) -> Asked:
    """Return what each sample number is asked for: all classes in turn, where classes are all that can be asked for.

    An objective with other conditions is asked for those of the examples (the test data) in turn.
    """
    names = program.generative.conditions()
    if not names:
        return {}
    if names == ("label",):
        return {"label": balanced(numbers, len(program.data.classes))}
    opened = examples()
    rows = batches.rows_at(opened, program.experiment.test.transforms, (numbers % len(opened)).tolist())
    return {name: rows[name] for name in names}


def balanced(numbers: Numbers, classes: int) -> Int[np.ndarray, " n"]:
    """Return a class for each sample number: all classes in turn."""
    return (numbers % classes).astype(np.int32)


def in_batches(
    mesh: Mesh, run: Callable[..., jax.Array], *arrays: Any, size: int, stop: Callable[[], None] = lambda: None
) -> np.ndarray:
    """Return `run` of the rows of trees of arrays, in batches of one shape: `size`, or what next divides over devices.

    The last batch is filled up with rows from the first. `stop` is called before each batch and may raise to leave.
    """
    parts, n = batch_parts(mesh), len(jax.tree.leaves(arrays)[0])
    size = -(-size // parts) * parts
    rows = []
    for begin in range(0, n, size):
        stop()
        at = np.arange(begin, begin + size) % n
        part = jax.device_put(jax.tree.map(lambda x, at=at: x[at], arrays), batch_sharding(mesh))
        rows.append(jax.device_get(run(*part)))
    return np.concatenate(rows)[:n]
