"""Samples: new examples drawn from a generative objective, each a function of the seed and its number."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float32, Int

from jaxgen.data import identity
from jaxgen.data.batches import rows_at
from jaxgen.data.source import Examples
from jaxgen.errors import UserError
from jaxgen.noise import numbered
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
    """Return the samples of these numbers; see `draw_batches`."""
    batches = draw_batches(program, state, numbers, seed, condition=condition, towards=towards, guide=guide, stop=stop)
    return np.concatenate(list(batches))


def draw_batches(
    program: Program,
    state: State,
    numbers: Sequence[int] | Numbers,
    seed: int = 0,
    *,
    condition: Asked | None = None,
    towards: tuple[Numbers, Float32[np.ndarray, " n"]] | None = None,
    guide: State | None = None,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[Float32[np.ndarray, "b *s"]]:
    """Yield the samples of these numbers, in batches of `test_batch_size`, each one compiled call over the mesh.

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
    return batch_by_batch(program.mesh, one, numbers, condition, towards, size=size, stop=stop)


def resized(program: Program, height: int, width: int) -> Program:
    """Return the program with samples of another size, where the objective and its nets can make them.

    Raises UserError where they cannot. Nothing is computed.
    """
    shape, dtype = program.data.element["image"]
    if len(shape) != 3:
        raise UserError("this run makes points, which have no size; drop --size")
    wanted = (height, width, shape[2])
    element = program.data.element | {"image": (wanted, dtype)}
    other = dataclasses.replace(program, data=dataclasses.replace(program.data, element=element))
    refusal = f"this run's net makes images of {shape[0]}×{shape[1]}, and cannot make {height}×{width}"
    try:
        made = jax.eval_shape(functools.partial(_first, other), program.shapes)
        spec = dict(program.spec) | {"image": jax.ShapeDtypeStruct((program.spec["image"].shape[0], *wanted), dtype)}
        shapes = jax.eval_shape(functools.partial(program.objective.init, spec=spec), jax.random.key(0))
    except UserError as error:
        raise UserError(f"{refusal}: {error}") from error
    except (flax.errors.FlaxError, TypeError, ValueError) as error:  # layers made for one size say so in their own ways
        raise UserError(f"{refusal}; drop --size") from error
    # A net that would have other weights at that size, such as attention at other places, would ignore some it has.
    if made.shape[1:] != wanted or _weights(shapes) != _weights(program.shapes):
        raise UserError(f"{refusal}; drop --size")
    return other


def _first(program: Program, state: State) -> jax.Array:
    """Draw one sample, to learn its shape."""
    keys = numbered(jax.random.key(0), jnp.zeros(1, jnp.int32))
    objective = program.generative
    element = program.data.element
    condition = {name: jnp.zeros((1, *element[name][0]), element[name][1]) for name in objective.conditions()}
    return objective.generate(state, objective.noise(keys, element["image"][0]), keys, condition)


def _weights(state: State) -> Any:
    return jax.tree.map(lambda x: x.shape, {name: net.params for name, net in state.nets.items()})


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
    identity.check_classes(program.data.classes, opened.classes)
    rows = rows_at(opened, program.experiment.test.transforms, (numbers % len(opened)).tolist())
    return {name: rows[name] for name in names}


def balanced(numbers: Numbers, classes: int) -> Int[np.ndarray, " n"]:
    """Return a class for each sample number: all classes in turn."""
    return (numbers % classes).astype(np.int32)


def proportional(labels: Int[np.ndarray, " m"], n: int) -> Int[np.ndarray, " n"]:
    """Return n labels, each as often as among these to within rounding, in an order that is drawn once and for all."""
    return np.random.default_rng(0).permutation(np.sort(labels)[spread(len(labels), n)]).astype(np.int32)


def spread(m: int, n: int) -> Numbers:
    """Return n places that lie evenly over 0..m-1: each of them once where n is m."""
    return (2 * np.arange(n) + 1) * m // (2 * n)


def batch_by_batch(
    mesh: Mesh, run: Callable[..., Any], *arrays: Any, size: int, stop: Callable[[], None] = lambda: None
) -> Iterator[Any]:
    """Yield `run` of the rows of trees of arrays, in batches of one shape: `size`, or what next divides over devices.

    The last batch is filled up with rows from the first, which are left out of what is yielded. `stop` is called before
    each batch and may raise to leave.
    """
    parts, n = batch_parts(mesh), len(jax.tree.leaves(arrays)[0])
    size = -(-size // parts) * parts
    pending: Any = None
    for begin in range(0, n, size):
        stop()
        at = np.arange(begin, begin + size) % n
        part = jax.device_put(jax.tree.map(lambda x, at=at: x[at], arrays), batch_sharding(mesh))
        new = run(*part)
        if pending is not None:  # read one batch late, so that the device never waits for the host
            yield jax.device_get(pending)
        pending = new
    if pending is not None:
        last = n - (n - 1) // size * size
        yield jax.tree.map(lambda x: x[:last], jax.device_get(pending))
