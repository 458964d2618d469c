"""An experiment on its mesh: shapes, shardings and the jitted functions, known before any number is computed."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen.experiment import Experiment
from jaxgen.objective import Scalars
from jaxgen.parallel.mesh import batch_sharding, replicated, with_shardings
from jaxgen.parallel.rules import shardings
from jaxgen.state import State
from jaxgen.typing import Batch, Spec, Tree


@dataclasses.dataclass(frozen=True)
class Program:
    """What the loop runs."""

    experiment: Experiment
    mesh: Mesh
    spec: Spec  # of a training batch
    shapes: Tree  # of the state, with shardings

    @functools.cached_property
    def init(self) -> Callable[[], State]:
        """Make the first state, every array born where it belongs."""
        objective, seed, spec = self.experiment.objective, self.experiment.seed, self.spec
        # Hundreds of random draws that run once: on a CPU, optimizing them takes ten times longer than not doing so.
        quick = {"xla_backend_optimization_level": 0} if self.mesh.devices.flat[0].platform == "cpu" else None
        return jax.jit(
            lambda: objective.init(jax.random.key(seed), spec), out_shardings=self._where, compiler_options=quick
        )

    @functools.cached_property
    def step(self) -> Callable[[State, Batch], tuple[State, Scalars]]:
        """Make one update; the state that goes in is gone (donated)."""

        def step(state: State, batch: Batch) -> tuple[State, Scalars]:
            # Every draw is a function of (seed, step), so that nothing random needs to be saved.
            key = jax.random.fold_in(jax.random.key(self.experiment.seed), state.step + 1)
            return self.experiment.objective.step(state, batch, key)

        return jax.jit(step, donate_argnums=0, out_shardings=(self._where, replicated(self.mesh)))

    @property
    def _where(self) -> Tree:
        return jax.tree.map(lambda x: x.sharding, self.shapes)


def program(experiment: Experiment, mesh: Mesh, element: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> Program:
    """Find the state's shapes and shardings without computing anything.

    `element` holds the shape and type of each array of one training example.
    """
    placed = batch_sharding(mesh)
    spec = {
        name: jax.ShapeDtypeStruct((experiment.batch_size, *shape), dtype, sharding=placed)
        for name, (shape, dtype) in element.items()
    }
    shapes = jax.eval_shape(functools.partial(experiment.objective.init, spec=spec), jax.random.key(0))
    return Program(experiment, mesh, spec, with_shardings(shapes, shardings(experiment.rule, shapes, mesh)))
