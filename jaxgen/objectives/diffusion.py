"""Diffusion: noise is added to images on the way forward, and a net learns the way back."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgen.diffusion import quantities
from jaxgen.diffusion.denoiser import denoiser
from jaxgen.diffusion.guidance import Conditioned
from jaxgen.diffusion.likelihood import log_likelihood
from jaxgen.diffusion.noise_distributions import NoiseDistribution, log_snr_slope
from jaxgen.diffusion.path import Path, ratio
from jaxgen.diffusion.predictions import Prediction
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Trajectory
from jaxgen.diffusion.weighting import Unweighted, Weighting
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, blank, first_state, joint_step
from jaxgen.metrics.accumulators import Mean
from jaxgen.nn.conditioning import one_hot
from jaxgen.nn.interfaces import Denoiser, require
from jaxgen.noise import normal, numbered
from jaxgen.objective import Metrics, TotalSteps
from jaxgen.objectives.checks import check_labels
from jaxgen.optim.muon import Muon
from jaxgen.pictures import previews
from jaxgen.pictures.panels import Curves, Panels, Picture
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.typing import Batch, Condition, Spec, Tree

MEASURED = 8  # noise levels at which the test error is measured
SHOWN, STRIPS = 8, 4  # images in a strip from data to noise or back, and strips


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion:
    """Denoising score matching and flow matching in one: path, prediction type and noise distribution say which.

    A batch has `image`, bytes or f32[b *s], and `label` if the net has classes. Sources: arXiv:2006.11239,
    arXiv:2206.00364, arXiv:2210.02747.
    """

    net: Learner
    path: Path
    """How much signal and noise there is at each time: Edm, Flow, Cosine, LinearBetas, ScaledLinearBetas, …"""
    prediction: Prediction
    """The prediction type, what the net's output means: EdmPreconditioning, or Direct with Eps, X0, V or Velocity."""
    noise_distribution: NoiseDistribution
    """Which noise levels training sees: Uniform, LogNormal, LogitNormal, LowDiscrepancy."""
    sampling: Sampling
    """How samples are made: solver, sampling schedule, guidance."""
    weighting: Weighting = Unweighted()
    """How much an error counts at each noise level."""
    label_dropout: float = 0.0
    """Share of the labels replaced by the null class in training; classifier-free guidance needs some, such as 0.1."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    side: int = 8
    """Previews show side × side samples."""
    total_steps: TotalSteps = 1

    def __post_init__(self) -> None:
        check_field(self, "label_dropout", 0 <= self.label_dropout <= 1, "a share of the labels, 0 to 1")
        check_field(self, "side", self.side >= 1, "at least 1")

    @property
    def learners(self) -> Mapping[str, Learner]:
        """The denoiser, and the weighting where it learns; what acts on paths is meant for the denoiser's weights.

        Weight decay acts on the weighting too, unless `weight_decay_mask` is for weights of other names.
        """
        own = self.weighting.module()
        if own is None:
            return {"net": self.net}
        optimizer = self.net.optimizer
        plain = optimizer and dataclasses.replace(optimizer, forced_weight_norm="", lr_multipliers=())
        if plain and isinstance(plain.method, Muon):
            plain = dataclasses.replace(plain, method=plain.method.adam)
        if plain and not re.search(plain.weight_decay_mask, "kernel"):
            plain = dataclasses.replace(plain, weight_decay=0.0)
        return {"net": self.net, "weighting": Learner(module=own, optimizer=plain, ema=self.net.ema)}

    @property
    def batch_parts(self) -> int:
        return 1

    @property
    def classes(self) -> int:
        module: Any = self.net.module
        return module.classes

    def conditions(self) -> tuple[str, ...]:
        """Return ("label",) where the net has classes."""
        return ("label",) if self.classes else ()

    def check_sampling(self, *, guide: bool) -> None:
        """Raise UserError where guidance, solver, sampling schedule and net do not fit each other."""
        droppable = self.label_dropout > 0
        self.sampling.check(self.path, conditional=bool(self.classes), droppable=droppable, guide=guide)

    def with_options(self, options: Mapping[str, Any]) -> "Diffusion":
        """Return the objective with another `solver`, `schedule` or `guidance`.

        Raises UserError for other options.
        """
        if other := options.keys() - {"solver", "schedule", "guidance"}:
            raise UserError(f"Diffusion has no {', '.join(sorted(other))} to choose")
        return dataclasses.replace(self, sampling=dataclasses.replace(self.sampling, **options))

    def protocol(self) -> dict[str, Any]:
        """Say how samples are made."""
        how = self.sampling
        return {
            "solver": repr(how.solver),
            "schedule": repr(how.schedule),
            "guidance": repr(how.guidance),
            "nfe": how.nfe(self.path),
        }

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, net, path, prediction type, guidance and solver do not fit each other."""
        require(self.net.module, Denoiser, "net")
        check_labels("net", self.classes, spec, classes)
        if self.label_dropout and not self.classes:
            raise UserError("--objective.label-dropout needs a net with classes; set it to 0")
        self.prediction.check(self.path)
        self.check_sampling(guide=False)
        jax.eval_shape(functools.partial(self.init, spec=spec), jax.random.key(0))  # the net refuses unfit sizes

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state; a weighting that learns is a net of its own."""
        k_net, k_weighting = jax.random.split(key)
        condition = self._condition({"label": jnp.zeros(1, jnp.int32)})
        nets = {"net": self.net.init(k_net, blank(spec), jnp.zeros(1), condition, total_steps=self.total_steps)}
        if weighting := self.learners.get("weighting"):
            one = jnp.ones(1)
            nets["weighting"] = weighting.init(k_weighting, one, one, total_steps=self.total_steps)
        return first_state(nets)

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update on freshly noised images."""
        # Drawn for the whole batch, so that accumulation over microbatches sees the same noise.
        k_level, k_noise, k_drop, k_net = jax.random.split(key, 4)
        x0 = to_float(batch["image"])
        t, u = self.noise_distribution.draw(k_level, x0.shape[0], self.path)
        rows: Any = {"x0": x0, "t": t, "u": u, "eps": jax.random.normal(k_noise, x0.shape), "condition": {}}
        if self.classes:
            drop = jax.random.bernoulli(k_drop, self.label_dropout, t.shape)
            rows["condition"] = self._condition({"label": jnp.where(drop, self.classes, batch["label"])})

        def loss(params: Tree, stats: Tree, rows: Tree, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            def net(z: Array, noise: Array) -> tuple[Array, Tree]:
                output, _, moved = self.net.train(params["net"], stats["net"], key, z, noise, rows["condition"])
                return output, moved

            error, moved = self._error(net, rows["x0"], rows["eps"], rows["t"])
            weighted = self._weighted(params.get("weighting", {}), error, rows["t"], rows["u"])
            return weighted.mean(), ({**stats, "net": moved}, {"error": error.mean()})

        return joint_step(
            self.learners, state, rows, k_net, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Sum, over the valid rows, the weighted loss and the squared error at eight noise levels."""
        x0 = to_float(batch["image"])
        # The noise of a row is a function of its place in the data, in any batch.
        keys = numbered(key, batch["index"])
        net = self._net(state, self._condition(batch))
        own = state.nets["weighting"].best_params if "weighting" in state.nets else {}

        def at(j: Int[Array, ""]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
            eps = jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, j), x0.shape[1:]))(keys)
            u = jnp.full(x0.shape[:1], (j + 0.5) / MEASURED)
            t = self.noise_distribution.at(u, self.path)
            error, _ = self._error(lambda z, noise: (net(z, noise), None), x0, eps, t)
            return error, self._weighted(own, error, t, u)

        errors, losses = jax.lax.map(at, jnp.arange(MEASURED))
        names = [f"error_at_{level:.3g}" for level in self._measured()]
        named = {name: Mean.of(error, batch["valid"]) for name, error in zip(names, errors, strict=True)}
        return {"loss": Mean.of(losses.mean(0), batch["valid"]), **named}

    def noise(self, keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b *s"]:
        """Return the standard normal noise that the samples of these keys start from."""
        return normal(keys, 0, shape)

    def generate(
        self,
        state: State,
        noise: Float[Array, "b *s"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None = None,
    ) -> Float[Array, "b *s"]:
        """Make one sample from each row of noise."""
        return self._draw(state, noise, keys, condition, guide, trace=False)[0]

    def log_likelihood(
        self,
        state: State,
        image: Float[Array, "b *s"],
        keys: Key[Array, " b"],
        condition: Condition,
        *,
        steps: int,
        sigma_min: float | None,
        sigma_max: float | None,
        probes: int,
    ) -> Float[Array, " b"]:
        """Return ln p of images in nats under the probability-flow ODE; see `diffusion.likelihood`."""
        denoise = denoiser(self._net(state, self._condition(condition)), self.path, self.prediction)
        schedule = Rho(steps=steps, sigma_min=sigma_min, sigma_max=sigma_max, to_zero=False)
        return log_likelihood(denoise, schedule.sigmas(self.path), image, keys, probes=probes)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Show samples, images on their way to noise, noise on its way to images, and the error at each noise level."""
        x0 = to_float(batch["image"])
        k_noise, k_samples = jax.random.split(key)
        n, shape = self.side**2, x0.shape[1:]
        condition = {"label": jnp.arange(n) % self.side % self.classes} if self.classes else {}
        keys = numbered(k_samples, jnp.arange(n))
        samples, steps = self._draw(state, self.noise(keys, shape), keys, condition, None, trace=True)
        assert steps is not None
        sums = self.evaluate(state, {**batch, "valid": jnp.ones(len(x0), bool)}, key)
        levels = self._measured()
        error = jnp.stack([sums[f"error_at_{level:.3g}"].total for level in levels]) / len(x0)
        sigmas = self.sampling.schedule.sigmas(self.path)
        places = self._places()
        shown = sigmas[places].tolist()
        forward = [self._noised(x0, s, k_noise) for s in shown[::-1]]
        reverse = [_scaled(steps.x[i], float(sigmas[i])) for i in places]
        return {
            "samples": previews.grid(samples, self.side),
            "forward": _strip(forward, shown[::-1]),
            "reverse": _strip(reverse, shown),
            "error": Curves(
                x=jnp.array(levels),
                y=error[None],
                labels=("test images",),
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
        slope = log_snr_slope(self.noise_distribution, u, self.path)
        return self.weighting.loss(params, error, self.prediction.out(alpha, sigma), alpha, sigma, slope)

    def _measured(self) -> list[float]:
        """Noise / signal of the levels at which errors are measured: the middles of equal shares of the training's."""
        with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
            t = self.noise_distribution.at((jnp.arange(MEASURED) + 0.5) / MEASURED, self.path)
        return ratio(self.path, np.asarray(t)).tolist()

    def _condition(self, batch: Condition) -> Condition:
        """Return what the net takes of a batch's arrays: class ids as weights over the classes and the null class."""
        return {"label": one_hot(batch["label"], self.classes)} if self.classes else {}

    def _net(self, state: State, condition: Condition) -> Callable[[Array, Array], Array]:
        return lambda z, noise: self.net.infer(state.nets["net"], z, noise, condition)

    def _draw(
        self,
        state: State,
        noise: Float[Array, "b *s"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None,
        *,
        trace: bool,
    ) -> tuple[Float[Array, "b *s"], Trajectory | None]:
        """Let the solver follow the state's net from noise to data; see `Sampling.run`."""

        def conditioned(state: State) -> Conditioned:
            return lambda x, sigma, asked: denoiser(self._net(state, asked), self.path, self.prediction)(x, sigma)

        return self.sampling.run(
            conditioned(state),
            self.path,
            noise,
            keys,
            condition=self._condition(condition),
            guide=None if guide is None else conditioned(guide),
            trace=trace,
        )

    def _noised(self, x0: Float[Array, "b *s"], sigma: float, key: PRNGKeyArray) -> Float[Array, "b *s"]:
        """Add noise of one level to images, the same noise at all levels, and scale them to be looked at."""
        eps = jax.random.normal(key, x0.shape)
        return _scaled(eps if np.isinf(sigma) else x0 + sigma * eps, sigma)

    def _places(self) -> np.ndarray:
        """Up to SHOWN places in the sampling schedule, first and last among them, even to the eye."""
        levels = self.sampling.schedule.sigmas(self.path)
        share = 1 - 1 / (1 + 2 * levels)  # of noise in what is shown: 1 at inf
        return np.unique([np.abs(share - wanted).argmin() for wanted in np.linspace(share[0], 0, SHOWN)])


def _scaled(x: Array, sigma: float) -> Array:
    """Scale x = x0 + sigma·eps, or eps at inf, to the range of an image; noise alone is shown at half its strength."""
    return x / 2 if np.isinf(sigma) else x / np.float32(np.sqrt(1.0 + 4.0 * sigma**2))


def _strip(levels: Sequence[Float[Array, "b *s"]], sigmas: Sequence[float]) -> Panels:
    """Lay out the same few images, or all points, at each noise level, from left to right."""
    columns = tuple(f"σ = {sigma:.2g}" for sigma in sigmas)
    if levels[0].ndim == 2:
        return previews.on_plane(levels, columns)
    rows = jnp.stack([grey_to_rgb(jnp.clip(x[:STRIPS], -1.0, 1.0)) for x in levels], axis=1)
    return Panels(images=rows, columns=columns)
