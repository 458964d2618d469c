"""An experiment on its mesh: shapes, shardings and the jitted functions, known before any number is computed."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.objective import Scalars
from jaxgen.parallel.activations import constrained
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

        return jax.jit(
            constrained(self.mesh, step), donate_argnums=0, out_shardings=(self._where, replicated(self.mesh))
        )

    @property
    def _where(self) -> Tree:
        return jax.tree.map(lambda x: x.sharding, self.shapes)


def program(experiment: Experiment, mesh: Mesh, element: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> Program:
    """Find the state's shapes and shardings without computing anything.

    `element` holds the shape and type of each array of one training example.
    """
    whole = {name: ((experiment.batch_size, *shape), dtype) for name, (shape, dtype) in element.items()}
    spec = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, shape))
        for name, (shape, dtype) in whole.items()
    }
    shapes = jax.eval_shape(functools.partial(experiment.objective.init, spec=spec), jax.random.key(0))
    placed = with_shardings(shapes, shardings(experiment.rule, shapes, mesh))
    _check_axes(mesh, spec, placed)
    return Program(experiment, mesh, spec, placed)


def _check_axes(mesh: Mesh, spec: Spec, shapes: Tree) -> None:
    """Raise UserError where devices of an axis would all do the same work."""
    rows = spec["image"].shape[1]
    if mesh.shape["context"] > 1 and "context" not in spec["image"].sharding.spec:
        raise UserError(
            f"mesh: the {rows} rows of a picture do not divide over the {mesh.shape['context']} devices of 'context'; "
            f"set --mesh.context to a divisor of {rows}"
        )
    used = {axis for leaf in jax.tree.leaves(shapes) for axis in jax.tree.leaves(tuple(leaf.sharding.spec))}
    if mesh.shape["tensor"] > 1 and "tensor" not in used:
        raise UserError(
            f"mesh: 'tensor' has {mesh.shape['tensor']} devices, and the rule splits nothing over them; set the "
            "config's rule to one that does, such as jaxgen.parallel.rules.DIT, or --mesh.tensor 1"
        )
