"""Pictures restored by a run: samples that agree with a measurement, each a function of it, the seed and its number."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float32

from jaxgen.diffusion.guidance import Guidance, Unguided
from jaxgen.errors import UserError
from jaxgen.noise import numbered
from jaxgen.objective import Editable, Generative
from jaxgen.parallel.mesh import replicated
from jaxgen.program import Program
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.daps import Rounds, options
from jaxgen.restoration.methods import TRAINED, Method
from jaxgen.restoration.windows import Windowed
from jaxgen.sampling import Asked, Numbers, batch_by_batch
from jaxgen.state import State

# (state, guide, damage, measured, numbers, seed, condition) -> samples in batches
Draw = Callable[..., Iterator[Float32[np.ndarray, "b *s"]]]


def restorer(
    program: Program,
    *,
    method: Method | Rounds | None = None,
    inner: Guidance | None = None,
    shape: tuple[int, ...] | None = None,
) -> Draw:
    """Return what draws pictures given measurements of them; see `Draw`. It is compiled once for each kind of damage.

    `measured` has a row for each number. The schedule is the run's, and the solver too unless `method` is one; `inner`
    is the guidance whose estimate is made to know the measurement. Pictures have the run's shape; those of a larger
    `shape` are seen through windows.

    Raises UserError where the run's objective has no denoiser of pixels, or pictures are smaller than the run's.
    """
    objective, own = _of_pixels(program)
    shape = shape or own
    way, through = method or TRAINED, windowed(inner or Unguided(), own, shape)

    def one(
        state: State, guide: Any, damage: Damage, seed: jax.Array, number: jax.Array, measured: Any, condition: Any
    ) -> jax.Array:
        keys = numbered(jax.random.key(seed), number)
        held = objective.with_options(options(way, damage, measured, through))
        return held.generate(state, objective.noise(keys, shape), keys, condition, guide)

    return _in_batches(program, program.map(one))


def denoiser(
    program: Program, *, noise: float, inner: Guidance | None = None, shape: tuple[int, ...] | None = None
) -> Draw:
    """Return what draws pictures given measurements that only noise of this deviation was added to; see `Draw`.

    The noisy picture is where sampling starts, in the middle of the schedule. By a solver that draws noise this is
    exact for any data; by the ODE it is not. `damage` is not looked at; `inner` and `shape` are as of `restorer`.

    Raises UserError where the run's objective cannot start from pixels, or pictures are smaller than the run's.
    """
    objective, own = _of_pixels(program)
    shape = shape or own
    held = objective.with_options({"guidance": windowed(inner or Unguided(), own, shape)})
    if not isinstance(held, Editable):
        raise UserError(f"{type(objective).__name__} cannot start from a noisy picture; a diffusion model can")
    strength = noise / (1 + noise)

    def one(
        state: State, guide: Any, damage: Damage, seed: jax.Array, number: jax.Array, measured: Any, condition: Any
    ) -> jax.Array:
        del damage
        keys = numbered(jax.random.key(seed), number)
        start = jnp.broadcast_to(measured, (len(number), *shape))
        return held.edit(state, start, jnp.zeros_like(start), keys, condition, guide, strength=strength)

    return _in_batches(program, program.map(one))


def windowed(inner: Guidance, own: tuple[int, ...], shape: tuple[int, ...]) -> Guidance:
    """Return guidance of pictures of a shape by a net for those of its own shape: of others, through windows.

    Raises UserError where they are smaller.
    """
    if shape == own:
        return inner
    through = Windowed(height=own[0], width=own[1], inner=inner)
    through.count(shape[0], shape[1])
    return through


def _of_pixels(program: Program) -> tuple[Generative, tuple[int, ...]]:
    """Return the objective and the shape of a picture. Raises UserError unless it has a denoiser of pixels."""
    objective, shape = program.generative, program.data.element["image"][0]
    try:
        objective.with_options({"guidance": Unguided()})
    except UserError as error:
        raise UserError(f"{type(objective).__name__} has no denoiser that could be guided by a picture") from error
    made = jax.eval_shape(lambda: objective.noise(jax.random.split(jax.random.key(0), 1), shape)).shape[1:]
    if made != shape:
        raise UserError(
            f"this run denoises latents of {_by(made)}, and what damages pixels is no linear map of latents; restore "
            "with a run of pixels"
        )
    return objective, shape


def _in_batches(program: Program, compiled: Any) -> Draw:
    whole = replicated(program.mesh)

    def draw(
        state: State,
        guide: State | None,
        damage: Damage,
        measured: Float[np.ndarray, "k *m"],
        numbers: Sequence[int] | Numbers,
        seed: int,
        condition: Asked,
    ) -> Iterator[Float32[np.ndarray, "b *s"]]:
        numbers = np.asarray(numbers, np.int32)
        there, start = jax.device_put(damage, whole), jax.device_put(np.uint32(seed), whole)
        size = min(program.experiment.test_batch_size, len(numbers))
        if len(measured) == 1:
            one = jax.device_put(np.asarray(measured, np.float32), whole)
            run = lambda number, condition: compiled(state, guide, there, start, number, one, condition)  # noqa: E731
            return batch_by_batch(program.mesh, run, numbers, condition, size=size)
        rows = lambda *row: compiled(state, guide, there, start, *row)  # noqa: E731
        return batch_by_batch(program.mesh, rows, numbers, np.asarray(measured, np.float32), condition, size=size)

    return draw


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
