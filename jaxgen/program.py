"""An experiment on its mesh: shapes and shardings, known before any number is computed, and every compiled function."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.data.batches import DataSpec, train_batches
from jaxgen.data.source import Examples
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.learner import Scalars
from jaxgen.noise import numbered, slerp
from jaxgen.objective import Density, Generative, Metrics, Objective, Prediction, Predictive
from jaxgen.parallel import compiler, memory
from jaxgen.parallel.activations import constrained
from jaxgen.parallel.mesh import batch_sharding, check_batch, process_rows, put_batch, replicated, with_shardings
from jaxgen.parallel.on_mesh import OnMesh
from jaxgen.parallel.rules import shardings
from jaxgen.pictures.panels import Picture
from jaxgen.pictures.pixels import to_float
from jaxgen.state import State
from jaxgen.typing import Batch, Condition, Spec, Tree

ROUNDING = 0.01  # what a value may exceed 1 by
LARGE = 1 << 24  # numbers in an image from which on its memory is looked at before the net is called


@dataclasses.dataclass(frozen=True)
class Program:
    """All that is compiled of one experiment. Nothing is compiled before it is called."""

    experiment: Experiment
    data: DataSpec
    mesh: Mesh
    spec: Spec  # of a training batch
    shapes: Tree  # of the state, with shardings

    @classmethod
    def of(cls, experiment: Experiment, data: DataSpec | None = None, devices: Any = None) -> "Program":
        """Lay an experiment out on devices (all of them by default) and check that everything fits.

        `data` describes one example; None opens the training data and looks. Raises UserError where mesh, rule, batch,
        nets and data do not fit each other. Nothing is computed.
        """
        if data is None:
            data = DataSpec.of(experiment.train.source.open(), experiment.train.transforms)
        program = cls.laid_out(experiment, data, devices)
        objective = program.objective
        check_batch(program.mesh, experiment.batch_size, objective.microbatches * objective.batch_parts)
        objective.check(program.spec, data.classes)
        return program

    @classmethod
    def laid_out(cls, experiment: Experiment, data: DataSpec, devices: Any = None) -> "Program":
        """Find the state's shapes and shardings, without the checks that only training needs."""
        mesh = experiment.mesh.build(devices)
        whole = {name: ((experiment.batch_size, *shape), dtype) for name, (shape, dtype) in data.element.items()}
        spec = {
            name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(mesh, shape))
            for name, (shape, dtype) in whole.items()
        }
        shapes = jax.eval_shape(functools.partial(experiment.objective.init, spec=spec), jax.random.key(0))
        placed = with_shardings(shapes, shardings(experiment.rule, shapes, mesh))
        _check_axes(mesh, spec, placed)
        return cls(experiment, data, mesh, spec, placed)

    @property
    def objective(self) -> Objective:
        return self.experiment.objective

    # --- training -----------------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Tree]:
        """Read the weights that learners start from, those of each net that has some.

        Raises UserError where they are not there or do not fit.
        """
        learners = self.objective.learners.items()
        return {n: learner.weights.read(self._variables(n)) for n, learner in learners if learner.weights is not None}

    def _variables(self, name: str) -> Tree:
        net = self.shapes.nets[name]
        return {"params": net.params, **net.stats}

    def init(self, weights: Mapping[str, Tree] | None = None) -> State:
        """Make the first state, every array born where it belongs, with the weights that learners start from.

        They are read unless they are given. Raises UserError as `weights` does, before anything is compiled.
        """
        read = self.weights() if weights is None else weights
        state = self._init()
        for name, found in read.items():
            own = self._variables(name)
            placed = jax.tree.map(lambda x, s: jax.device_put(np.asarray(x, s.dtype), s.sharding), found, own)
            params, net = placed.pop("params"), state.nets[name]
            ema = tuple(jax.tree.map(jnp.copy, params) for _ in net.ema)
            state.nets[name] = net.replace(params=params, stats=placed, ema=ema)
        return state

    @functools.cached_property
    def _init(self) -> OnMesh[[], State]:
        objective, seed, spec = self.objective, self.experiment.seed, self.spec
        # Hundreds of random draws that run once: on a CPU, optimizing them takes ten times longer than not doing so.
        quick = {"xla_backend_optimization_level": 0} if self.mesh.devices.flat[0].platform == "cpu" else None
        return self._jit(
            lambda: objective.init(jax.random.key(seed), spec), out_shardings=self._where, compiler_options=quick
        )

    @functools.cached_property
    def step(self) -> OnMesh[[State, Batch], tuple[State, Scalars]]:
        """Make one update; the state that goes in is gone (donated)."""

        def step(state: State, batch: Batch) -> tuple[State, Scalars]:
            # Every draw is a function of (seed, step), so that nothing random needs to be saved.
            key = jax.random.fold_in(jax.random.key(self.experiment.seed), state.step + 1)
            return self.objective.step(state, batch, key)

        guarded = self.experiment.divergence.guard(step)
        return self._jit(
            constrained(self.mesh, guarded), donate_argnums=0, out_shardings=(self._where, replicated(self.mesh))
        )

    def batches(self, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yield the training batches start … stop-1 (by default, of the whole training) on the mesh."""
        rows = self.host_batches(self.experiment.train.source.open(), start, stop)
        return (put_batch(self.mesh, batch) for batch in rows)

    def host_batches(
        self, examples: Examples, start: int = 0, stop: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yield this process's rows of the training batches, made ahead of time."""
        experiment = self.experiment
        return train_batches(
            examples,
            experiment.train.transforms,
            seed=experiment.seed,
            batch_size=experiment.batch_size,
            start=start,
            stop=experiment.steps if stop is None else stop,
            rows=process_rows(self.mesh, experiment.batch_size),
            workers=experiment.train.workers,
        )

    # --- evaluation ---------------------------------------------------------------------------------------------------

    @functools.cached_property
    def evaluate(self) -> OnMesh[[State, Batch], Metrics]:
        """Return the sums of one batch; every evaluation draws the same random numbers."""
        seed = self.experiment.seed
        return self._replicated(lambda state, batch: self.objective.evaluate(state, batch, jax.random.key(seed)))

    @functools.cached_property
    def preview(self) -> OnMesh[[State, Batch], Mapping[str, Picture]]:
        """Return what a person looks at, always of the same random numbers."""
        seed = self.experiment.seed
        return self._replicated(lambda state, batch: self.objective.preview(state, batch, jax.random.key(seed)))

    def map(self, f: Callable[..., Any]) -> OnMesh[..., Any]:
        """Compile a pure function of rows, such as a feature net."""
        return self._replicated(f)

    # --- use ----------------------------------------------------------------------------------------------------------

    @property
    def generative(self) -> Generative:
        """The objective, as one that makes samples.

        Raises UserError if it is none.
        """
        if not isinstance(self.objective, Generative):
            raise UserError(f"{type(self.objective).__name__} makes no samples")
        return self.objective

    @functools.cached_property
    def sample(self) -> OnMesh[..., jax.Array]:
        """Return (state, guide, seed, numbers, condition, towards) -> one sample for each number.

        `guide` is the guiding model's state or None. `towards` is None, or (numbers, share): the noise of each sample
        then lies that far (0..1) on the arc to the noise of another.
        """
        objective, shape = self.generative, self.data.element["image"][0]

        def sample(
            state: State, guide: State | None, seed: jax.Array, number: jax.Array, condition: Condition, towards: Any
        ) -> jax.Array:
            keys = numbered(jax.random.key(seed), number)
            noise = objective.noise(keys, shape)
            if towards is not None:
                other, share = towards
                noise = slerp(noise, objective.noise(numbered(jax.random.key(seed), other), shape), share)
            return objective.generate(state, noise, keys, condition, guide)

        return self._replicated(sample)

    def likelihood(
        self, *, steps: int, sigma_min: float | None, sigma_max: float | None, probes: int
    ) -> OnMesh[..., jax.Array]:
        """Return (state, image, keys, condition) -> ln p of each image in nats.

        Raises UserError where the objective has no likelihood.
        """
        objective = self.objective
        if not isinstance(objective, Density):
            raise UserError(
                f"{type(objective).__name__} has no likelihood; remove Likelihood from the config's `metrics`"
            )

        def one(state: State, image: jax.Array, keys: jax.Array, condition: Condition) -> jax.Array:
            return objective.log_likelihood(
                state, image, keys, condition,
                steps=steps, sigma_min=sigma_min, sigma_max=sigma_max, probes=probes,
            )  # fmt: skip

        return self._replicated(one)

    @property
    def predictive(self) -> Predictive:
        """The objective, as one that maps images.

        Raises UserError if it is none.
        """
        if not isinstance(self.objective, Predictive):
            raise UserError(
                f"{type(self.objective).__name__} does not predict from images; `jaxgen sample` draws samples from it"
            )
        return self.objective

    @functools.cached_property
    def forward(self) -> OnMesh[[State, jax.Array], jax.Array]:
        """Return the net's answer to images, compiled once for each of their sizes; see `Predictive.forward`."""
        return self._jit(constrained(self.mesh, self.predictive.forward))

    def predict(self, state: State, image: np.ndarray) -> Prediction:
        """Return what is found in images: bytes u8[b h w c], or f32[b h w c] in [-1, 1].

        Raises UserError for an image that is not like the data's, and where the net's answer to a large one would not
        fit into the memory that is free.
        """
        image = self._as_trained(image)

        def forward(x: Any) -> jax.Array:
            if isinstance(x, jax.core.Tracer):  # asked for its shape only
                return self.predictive.forward(state, x)
            x = jnp.asarray(x)
            if x.size > LARGE:
                self._check_memory(state, x)
            return self.forward.function(state, x)

        with jax.set_mesh(self.mesh):  # outside, as `predict` may trace what it is given
            return self.predictive.predict(forward, image)

    def _as_trained(self, image: Any) -> np.ndarray:
        """Return images as the net learned them.

        Raises UserError for other axes or channels than the data's and, where the data are bytes, for values that are
        neither bytes nor in [-1, 1].
        """
        image = np.asarray(image)
        shape, dtype = self.data.element["image"]
        if image.ndim != len(shape) + 1 or image.shape[-1] != shape[-1]:
            axes = f"h w {shape[-1]}" if len(shape) == 3 else " ".join(map(str, shape))
            raise UserError(
                f"images are arrays [b {axes}], not {list(image.shape)}; give several, or one as image[None]"
            )
        if dtype != np.uint8:
            return image
        if image.dtype == np.uint8:
            return np.asarray(to_float(jnp.asarray(image)))
        low, high = float(image.min(initial=0)), float(image.max(initial=0))
        if not jnp.issubdtype(image.dtype, jnp.floating) or low < -1 - ROUNDING or high > 1 + ROUNDING:
            raise UserError(
                f"images of {image.dtype} from {low:g} to {high:g}: give bytes (u8), or floats in [-1, 1], which are "
                "bytes / 127.5 - 1"
            )
        return image

    def _check_memory(self, state: State, x: jax.Array) -> None:
        """Raise UserError unless the compiled `forward` of an image fits into the memory that is free."""
        free = memory.free(self.mesh.devices.flat[0])
        found = self.forward.function.lower(state, x).compile().memory_analysis()
        needed = 0 if found is None else found.temp_size_in_bytes + found.output_size_in_bytes
        if free is not None and needed > free:
            raise UserError(
                f"an image of {x.shape[1]}x{x.shape[2]} takes the net {needed / 1e9:.1f} GB at once, and "
                f"{free / 1e9:.1f} GB are free; train with a sliding window, or predict smaller pictures"
            )

    # ------------------------------------------------------------------------------------------------------------------

    @property
    def _where(self) -> Tree:
        return jax.tree.map(lambda x: x.sharding, self.shapes)

    def _jit(self, function: Callable[..., Any], compiler_options: dict[str, Any] | None = None, **how: Any) -> Any:
        chosen = compiler.options(self.mesh) | (compiler_options or {})
        return OnMesh(self.mesh, jax.jit(function, compiler_options=chosen, **how))

    def _replicated(self, function: Callable[..., Any]) -> Any:
        return self._jit(constrained(self.mesh, function), out_shardings=replicated(self.mesh))


def _check_axes(mesh: Mesh, spec: Spec, shapes: Tree) -> None:
    """Raise UserError where devices of an axis would all do the same work."""
    rows = spec["image"].shape[1]
    if mesh.shape["context"] > 1 and "context" not in spec["image"].sharding.spec:
        raise UserError(
            f"mesh: the {rows} rows of an image do not divide over the {mesh.shape['context']} devices of 'context'; "
            f"set --mesh.context to a divisor of {rows}"
        )
    used = {axis for leaf in jax.tree.leaves(shapes) for axis in jax.tree.leaves(tuple(leaf.sharding.spec))}
    if mesh.shape["tensor"] > 1 and "tensor" not in used:
        raise UserError(
            f"mesh: 'tensor' has {mesh.shape['tensor']} devices, and the rule splits nothing over them; set the "
            "config's rule to one that does, such as jaxgen.models.dit.DIT, or --mesh.tensor 1"
        )
