"""Diffusion: pictures drowned in noise on the way forward, and a net that learns the way back."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgen import learner
from jaxgen.diffusion import noise_distributions as noise_levels
from jaxgen.diffusion import quantities
from jaxgen.diffusion.denoiser import denoiser
from jaxgen.diffusion.guidance import Conditioned
from jaxgen.diffusion.likelihood import log_likelihood
from jaxgen.diffusion.noise_distributions import NoiseDistribution
from jaxgen.diffusion.path import Path, ratio
from jaxgen.diffusion.predictions import Prediction
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import SamplingSchedule
from jaxgen.diffusion.solvers import Trajectory
from jaxgen.diffusion.weighting import Unweighted, Weighting
from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.conditioning import one_hot
from jaxgen.noise import Towards, numbered
from jaxgen.objective import Metrics, Scalars, TotalSteps
from jaxgen.optim.optimizer import Optimizer
from jaxgen.pictures import previews
from jaxgen.pictures.panels import Curves, Panels, Picture
from jaxgen.pictures.pixels import grey_to_rgb, scatter, to_float
from jaxgen.state import State, create
from jaxgen.typing import Batch, Spec, Tree

MEASURED = 8  # noise levels at which the test error is measured
SHOWN, STRIPS = 8, 4  # pictures in a strip from data to noise or back, and strips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
    """Denoising score matching and flow matching in one: the path, the prediction and the levels say which.

    A batch has `image`, bytes or f32[b *s], and `label` if the net has classes. Sources: arXiv:2006.11239,
    arXiv:2206.00364, arXiv:2210.02747.
    """

    net: nn.Module
    optimizer: Optimizer
    path: Path
    """How much signal and noise there is at each time: Edm, Flow, Cosine, LinearBetas, ScaledLinearBetas, …"""
    prediction: Prediction
    """What the net's output means: Karras (EDM's preconditioning), or Plain with Eps, X0, V or Velocity."""
    levels: NoiseDistribution
    """Which noise levels training sees: Uniform, LogNormal, LogitNormal, LowDiscrepancy."""
    sampling: Sampling
    """How samples are made: solver, grid of noise levels, guidance."""
    weighting: Weighting = Unweighted()
    """How much an error counts at each noise level."""
    label_dropout: float = 0.0
    """Share of the labels replaced by the null class in training; classifier-free guidance needs some, such as 0.1."""
    averages: tuple[Any, ...] = ()
    """Moving averages of the weights to keep, of `Average`; samples come from the first, () keeps none."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    side: int = 8
    """Previews show side × side samples."""
    steps: TotalSteps = 1

    @property
    def txs(self) -> dict[str, optax.GradientTransformation]:
        """The optimizer of each net; what it does to weights by their path is meant for the denoiser's."""
        plain = dataclasses.replace(self.optimizer, unit="", multipliers=())
        return {"net": self.optimizer.transform(self.steps), "weighting": plain.transform(self.steps)}

    @property
    def classes(self) -> int:
        return int(getattr(self.net, "classes", 0))

    def conditional(self) -> bool:
        """Whether the net is told a class."""
        return self.classes > 0

    def check_sampling(self, *, weak: bool) -> None:
        """Raise UserError where guidance, solver, grid and net do not fit each other."""
        self.sampling.check(self.path, conditional=self.conditional(), droppable=self.label_dropout > 0, weak=weak)

    def protocol(self) -> dict[str, Any]:
        """Say how samples are made."""
        made = self.sampling
        return {
            "solver": repr(made.solver),
            "grid": repr(made.grid),
            "guidance": repr(made.guidance),
            "nfe": made.nfe(self.path),
        }

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, net, path, prediction, guidance and solver do not fit each other."""
        learner.check_division(spec, self.microbatches)
        learner.check_labels("net", self.classes, spec, classes)
        if self.label_dropout and not self.classes:
            raise UserError("--objective.label-dropout needs a net with classes; set it to 0")
        self.prediction.check(self.path)
        self.check_sampling(weak=False)
        jax.eval_shape(functools.partial(self.init, spec=spec), jax.random.key(0))  # the net refuses unfit sizes

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state; a weighting that learns is a net of its own."""
        k_net, k_weighting = jax.random.split(key)
        label = one_hot(jnp.zeros(1, jnp.int32), self.classes) if self.classes else None
        state = learner.init(
            self.net, self.txs["net"], k_net, (learner.blank(spec), jnp.zeros(1), label), self.averages
        )
        if own := self.weighting.init(k_weighting):
            state.nets["weighting"] = create(own, {}, self.txs["weighting"], len(self.averages))
        return state

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update on freshly noised pictures."""
        # Drawn for the whole batch, so that accumulation over microbatches sees the same noise.
        k_level, k_noise, k_drop, k_net = jax.random.split(key, 4)
        x0 = to_float(batch["image"])
        t, u = self.levels.draw(k_level, x0.shape[0], self.path)
        drawn = {"x0": x0, "t": t, "u": u, "eps": jax.random.normal(k_noise, x0.shape)}
        if self.classes:
            drop = jax.random.bernoulli(k_drop, self.label_dropout, t.shape)
            drawn["label"] = one_hot(jnp.where(drop, self.classes, batch["label"]), self.classes)

        def loss(params: Tree, stats: Tree, drawn: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            def net(z: Array, noise: Array) -> tuple[Array, Tree]:
                output, _, moved = learner.train(self.net, params["net"], stats, key, z, noise, drawn.get("label"))
                return output, moved

            error, moved = self._error(net, drawn["x0"], drawn["eps"], drawn["t"])
            rows = self._weighted(params.get("weighting", {}), error, drawn["t"], drawn["u"])
            return rows.mean(), (moved, {"error": error.mean()})

        return learner.step(
            state, drawn, k_net, loss, self.txs, averages=self.averages, microbatches=self.microbatches
        )  # fmt: skip

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Sum, over the valid rows, the weighted loss and the squared error at eight levels of noise."""
        x0 = to_float(batch["image"])
        # The noise of a row is a function of its place in the data, whatever batch it comes in.
        keys = numbered(key, batch["index"])
        net = self._net(state, self._labels(batch))
        own = state.nets["weighting"].best_params if "weighting" in state.nets else {}

        def at(j: Int[Array, ""]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
            eps = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, j), x0.shape[1:]))(keys)
            u = jnp.full(x0.shape[:1], (j + 0.5) / MEASURED)
            t = self.levels.at(u, self.path)
            error, _ = self._error(lambda z, noise: (net(z, noise), None), x0, eps, t)
            return error, self._weighted(own, error, t, u)

        errors, losses = jax.lax.map(at, jnp.arange(MEASURED))
        names = [f"error_at_{level:.3g}" for level in self._measured()]
        named = {name: Mean.of(error, batch["valid"]) for name, error in zip(names, errors, strict=True)}
        return {"loss": Mean.of(losses.mean(0), batch["valid"]), **named}

    def generate(
        self,
        state: State,
        shape: tuple[int, ...],
        keys: Key[Array, " b"],
        label: Int[Array, " b"] | None,
        weak: State | None,
        towards: Towards | None = None,
    ) -> Float[Array, "b *s"]:
        """Make one sample of the given shape from each key, or what lies towards those of other keys."""
        return self._draw(state, shape, keys, label, weak, trace=False, towards=towards)[0]

    def log_likelihood(
        self,
        state: State,
        x0: Float[Array, "b *s"],
        keys: Key[Array, " b"],
        label: Int[Array, " b"] | None,
        grid: SamplingSchedule,
        probes: int,
    ) -> Float[Array, " b"]:
        """Return ln p(x0) in nats under the probability-flow ODE; see `diffusion.likelihood`."""
        net = self._net(state, None if label is None else one_hot(label, self.classes))
        denoise = denoiser(net, self.path, self.prediction)
        return log_likelihood(denoise, grid.sigmas(self.path), x0, keys, probes=probes)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Show samples, pictures on their way to noise, noise on its way to pictures, and the error on the way."""
        x0 = to_float(batch["image"])
        k_noise, k_grid = jax.random.split(key)
        n, shape = self.side**2, x0.shape[1:]
        label = jnp.arange(n) % self.side % self.classes if self.classes else None
        keys = numbered(k_grid, jnp.arange(n))
        samples, steps = self._draw(state, shape, keys, label, None, trace=True)
        assert steps is not None
        sums = self.evaluate(state, {**batch, "valid": jnp.ones(len(x0), bool)}, key)
        levels = self._measured()
        error = jnp.stack([sums[f"error_at_{level:.3g}"].total for level in levels]) / len(x0)
        strip = self._strip()
        forward = [self._noised(x0, s, k_noise) for s in strip[::-1]]
        grid = self.sampling.grid.sigmas(self.path)
        reverse = [_scaled(steps.x[i], float(grid[i])) for i in self._places()]
        return {
            "samples": previews.grid(samples, self.side),
            "forward": _strip(forward),
            "reverse": _strip(reverse),
            "error": Curves(
                x=jnp.array(levels),
                y=error[None],
                labels=("test pictures",),
                axes=("noise / signal", "squared error"),
            ),
        }

    def _error(self, net: Any, x0: Array, eps: Array, t: Float[Array, " b"]) -> tuple[Float[Array, " b"], Any]:
        """Return each row's mean squared error of the net's output, and what else the net returned."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        z = quantities.rows(alpha, x0) * x0 + quantities.rows(sigma, x0) * eps
        scale = self.prediction.scale(alpha, sigma)
        output, more = net(quantities.rows(scale, z) * z, self.prediction.noise(alpha, sigma, t))
        wrong = output.astype(jnp.float32) - self.prediction.target(x0, eps, alpha, sigma)
        return jnp.square(wrong).mean(tuple(range(1, wrong.ndim))), more

    def _weighted(self, params: Tree, error: Array, t: Array, u: Array) -> Float[Array, " b"]:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        slope = noise_levels.slope(self.levels, u, self.path)
        return self.weighting.loss(params, error, self.prediction.out(alpha, sigma), alpha, sigma, slope)

    def _measured(self) -> list[float]:
        """Noise / signal of the levels at which errors are measured: the middles of equal shares of the training's."""
        with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
            t = self.levels.at((jnp.arange(MEASURED) + 0.5) / MEASURED, self.path)
        return ratio(self.path, np.asarray(t)).tolist()

    def _labels(self, batch: Batch) -> Float[Array, "b n"] | None:
        return one_hot(batch["label"], self.classes) if self.classes else None

    def _net(self, state: State, label: Float[Array, "b n"] | None) -> Any:
        return lambda z, noise: learner.infer(self.net, state, z, noise, label)

    def _draw(
        self,
        state: State,
        shape: tuple[int, ...],
        keys: Key[Array, " b"],
        label: Array | None,
        weak: State | None,
        *,
        trace: bool,
        towards: Towards | None = None,
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        """Let the solver follow the state's net from noise to data; see `Sampling.run`."""

        def conditioned(state: State) -> Conditioned:
            return lambda x, sigma, label: denoiser(self._net(state, label), self.path, self.prediction)(x, sigma)

        return self.sampling.run(
            conditioned(state),
            self.path,
            shape,
            keys,
            label=None if label is None else one_hot(label, self.classes),
            weak=None if weak is None else conditioned(weak),
            trace=trace,
            towards=towards,
        )

    def _noised(self, x0: Float[Array, "b *s"], sigma: float, key: PRNGKeyArray) -> Float[Array, "b *s"]:
        """Drown pictures in noise of one level, the same noise at all levels, scaled to be looked at."""
        eps = jax.random.normal(key, x0.shape)
        return _scaled(eps if np.isinf(sigma) else x0 + sigma * eps, sigma)

    def _places(self) -> np.ndarray:
        """Up to SHOWN places in the sampler's grid, first and last among them, even to the eye."""
        levels = self.sampling.grid.sigmas(self.path)
        share = 1 - 1 / (1 + 2 * levels)  # of noise in what is shown: 1 at inf
        return np.unique([np.abs(share - wanted).argmin() for wanted in np.linspace(share[0], 0, SHOWN)])

    def _strip(self) -> list[float]:
        """The levels at these places, from noise to data."""
        return self.sampling.grid.sigmas(self.path)[self._places()].tolist()


def _scaled(x: Array, sigma: float) -> Array:
    """Give x = x0 + sigma·eps, or eps at inf, the size of a picture; noise alone is shown at half its strength."""
    return x / 2 if np.isinf(sigma) else x / np.float32(np.sqrt(1.0 + 4.0 * sigma**2))


def _strip(levels: Sequence[Float[Array, "b *s"]]) -> Panels:
    """Lay out the same few pictures, or all points, at each level: level by level from left to right."""
    if levels[0].ndim == 2:
        return Panels(images=jnp.stack([scatter(x) for x in levels])[None])
    rows = jnp.stack([grey_to_rgb(jnp.clip(x[:STRIPS], -1.0, 1.0)) for x in levels], axis=1)
    return Panels(images=rows)
