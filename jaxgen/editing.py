"""Images that a generative objective starts from: each result a function of the image, the seed and its number."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from jaxgen.errors import UserError
from jaxgen.noise import numbered
from jaxgen.objective import Editable
from jaxgen.parallel.mesh import replicated
from jaxgen.program import Program
from jaxgen.sampling import Asked, Numbers, batch_by_batch
from jaxgen.state import State

Image = Float[np.ndarray, "*s"]  # in [-1, 1], as the net takes it


def edit(
    program: Program,
    state: State,
    image: Image,
    numbers: Sequence[int] | Numbers,
    seed: int = 0,
    *,
    strength: float,
    condition: Asked,
    guide: State | None = None,
) -> Iterator[Float32[np.ndarray, "b *s"]]:
    """Yield what is made of an image, once for each number, in batches of `test_batch_size`.

    `strength` in 0..1 of noise is mixed with 1 - `strength` of the image, and denoised; the noise is that of the sample
    of the same seed and number. `condition` has a row for each number.

    Raises UserError if the objective cannot start from images.
    """
    objective, shape = editable(program), program.data.element["image"][0]

    def one(state: State, guide: Any, seed: jax.Array, image: jax.Array, number: jax.Array, condition: Any) -> Any:
        keys = numbered(jax.random.key(seed), number)
        rows = jnp.broadcast_to(image[None], (len(number), *image.shape))
        noise = objective.noise(keys, shape)
        return objective.edit(state, rows, noise, keys, condition, guide, strength=strength)

    run = _bound(program, one, state, guide, seed, image)
    return _in_batches(program, run, numbers, condition)


def again(
    program: Program,
    state: State,
    image: Image,
    numbers: Sequence[int] | Numbers,
    seed: int = 0,
    *,
    shows: Asked,
    condition: Asked,
    guide: State | None = None,
) -> Iterator[Float32[np.ndarray, "b *s"]]:
    """Yield samples made from the noise that an image comes from, once for each number.

    That noise is found without guidance, for the condition `shows`; with another `condition` the image is edited. Both
    have a row for each number. Where the solver draws noise of its own, the seed and the number say which.

    Raises UserError if the objective cannot start from images.
    """
    objective = editable(program)

    def one(
        state: State, guide: Any, seed: jax.Array, image: jax.Array, number: jax.Array, shows: Any, condition: Any
    ) -> jax.Array:
        keys = numbered(jax.random.key(seed), number)
        rows = jnp.broadcast_to(image[None], (len(number), *image.shape))
        return objective.generate(state, objective.invert(state, rows, shows), keys, condition, guide)

    run = _bound(program, one, state, guide, seed, image)
    return _in_batches(program, run, numbers, shows, condition)


def editable(program: Program) -> Editable:
    """Return the objective, as one that starts from images. Raises UserError if it is none."""
    objective = program.objective
    if not isinstance(objective, Editable):
        raise UserError(f"{type(objective).__name__} cannot start from an image; a diffusion model can")
    return objective


def _bound(program: Program, one: Callable[..., Any], *fixed: Any) -> Callable[..., jax.Array]:
    """Return a compiled function of rows; state, guide, seed and image lie on every device."""
    state, guide, seed, image = fixed
    whole = replicated(program.mesh)
    seed, image = jax.device_put(np.uint32(seed), whole), jax.device_put(np.asarray(image, np.float32), whole)
    run = program.map(one)
    return lambda *rows: run(state, guide, seed, image, *rows)


def _in_batches(program: Program, run: Any, numbers: Sequence[int] | Numbers, *asked: Asked) -> Iterator[np.ndarray]:
    numbers = np.asarray(numbers, np.int32)
    size = min(program.experiment.test_batch_size, len(numbers))
    return batch_by_batch(program.mesh, run, numbers, *asked, size=size)
