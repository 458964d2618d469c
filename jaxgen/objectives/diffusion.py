"""Diffusion: noise is added to images, or to their latents, on the way forward, and a net learns the way back."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.diffusion.denoiser import NetWithMore, output_error
from jaxgen.diffusion.likelihood import log_likelihood
from jaxgen.diffusion.noise_distributions import NoiseDistribution, log_snr_slope, middles
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Trajectory
from jaxgen.diffusion.weighting import Unweighted, Weighting
from jaxgen.errors import UserError
from jaxgen.learner import Learner, Scalars, first_state, joint_step
from jaxgen.noise import numbered
from jaxgen.objective import Metrics
from jaxgen.objectives import denoising_preview
from jaxgen.objectives.denoising import MEASURED, Denoising
from jaxgen.objectives.editing import edited, inverted
from jaxgen.optim.muon import Muon
from jaxgen.pictures.panels import Picture
from jaxgen.state import State
from jaxgen.typing import Batch, Condition, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diffusion(Denoising):
    """Denoising score matching and flow matching in one: path, prediction type and noise distribution say which.

    Sources: arXiv:2006.11239, arXiv:2206.00364, arXiv:2210.02747; of latents and texts arXiv:2112.10752.
    """

    noise_distribution: NoiseDistribution
    """Which noise levels training sees: Uniform, LogNormal, LogitNormal, LowDiscrepancy."""
    sampling: Sampling
    """How samples are made: solver, sampling schedule, guidance."""
    weighting: Weighting = Unweighted()
    """How much an error counts at each noise level."""

    @property
    def learners(self) -> Mapping[str, Learner]:
        """The denoiser, text encoders, the autoencoder, and the weighting where it learns.

        What acts on paths is meant for the denoiser's weights. Weight decay acts on the weighting too, unless
        `weight_decay_mask` is for weights of other names.
        """
        nets = super().learners
        own = self.weighting.module()
        if own is None:
            return nets
        optimizer = self.net.optimizer
        plain = optimizer and dataclasses.replace(optimizer, forced_weight_norm="", lr_multipliers=())
        if plain and isinstance(plain.method, Muon):
            plain = dataclasses.replace(plain, method=plain.method.adam)
        if plain and not re.search(plain.weight_decay_mask, "kernel"):
            plain = dataclasses.replace(plain, weight_decay=0.0)
        return {**nets, "weighting": Learner(module=own, optimizer=plain, ema=self.net.ema)}

    def check_sampling(self, *, guide: bool) -> None:
        """Raise UserError where guidance, solver, sampling schedule and net do not fit each other."""
        conditional = bool(self.conditions())
        self.sampling.check(self.path, conditional=conditional, droppable=self.droppable, guide=guide)

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
        self.check_data(spec, classes)
        self.check_sampling(guide=False)
        jax.eval_shape(functools.partial(self.init, spec=spec), jax.random.key(0))  # the net refuses unfit sizes

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state; a weighting that learns is a net of its own."""
        k_net, k_weighting = jax.random.split(key)
        nets = self.first_nets(key, k_net, spec)
        if weighting := self.learners.get("weighting"):
            one = jnp.ones(1)
            nets["weighting"] = weighting.init(k_weighting, one, one, total_steps=self.total_steps)
        return first_state(nets)

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update on freshly noised images."""
        k_level, k_noise, k_drop, k_net = jax.random.split(key, 4)
        t, u = self.noise_distribution.draw(k_level, batch["image"].shape[0], self.path)
        rows = self.rows(batch, k_noise, k_drop) | {"t": t, "u": u}

        def loss(params: Tree, stats: Tree, rows: Tree, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            x0 = self.clean(params, stats, rows)
            condition, moved_texts = self.asked_in_training(params, stats, rows, key)
            net = self.net_in_training(params, stats, condition, key)
            error, moved = self._error(net, x0, rows["eps"], rows["t"])
            weighted = self._weighted(params.get("weighting", {}), error, rows["t"], rows["u"])
            return weighted.mean(), ({**stats, **moved_texts, "net": moved}, {"error": error.mean()})

        return joint_step(
            self.learners, state, rows, k_net, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Sum, over the valid rows, the weighted loss and the squared error at eight noise levels."""
        x0 = self.means(state, batch)
        net = self.fixed_net(state, self.asked(state, batch)[0])
        own = state.nets["weighting"].best_params if "weighting" in state.nets else {}

        def at(eps: Array, u: Array) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
            t = self.noise_distribution.at(u, self.path)
            error, _ = self._error(net, x0, eps, t)
            return error, self._weighted(own, error, t, u)

        return self.errors(batch, x0, key, self.noise_distribution, at)

    def generate(
        self,
        state: State,
        noise: Float[Array, "b *z"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None = None,
    ) -> Float[Array, "b *s"]:
        """Make one sample from each row of noise."""
        return self.seen(state, self._draw(state, noise, keys, condition, guide, trace=False)[0])

    def edit(
        self,
        state: State,
        image: Float[Array, "b *s"],
        noise: Float[Array, "b *z"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None = None,
        *,
        strength: float,
    ) -> Float[Array, "b *s"]:
        """Return images noised as far as `strength` says and denoised again; see `objectives.editing`."""
        return edited(self, self.sampling, state, image, noise, keys, condition, guide, strength)

    def invert(self, state: State, image: Float[Array, "b *s"], condition: Condition) -> Float[Array, "b *z"]:
        """Return the noise from which sampling without guidance leads to images."""
        return inverted(self, self.sampling, state, image, condition)

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
        if self.latent is not None:
            raise UserError(
                "a model of latents gives pixels no likelihood; remove Likelihood from the config's metrics"
            )
        denoise = self.denoise(state, self.asked(state, condition)[0])
        schedule = Rho(steps=steps, sigma_min=sigma_min, sigma_max=sigma_max, to_zero=False)
        return log_likelihood(denoise, schedule.sigmas(self.path), image, keys, probes=probes)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Show samples, images on their way to noise, noise on its way to images, and the error at each noise level."""
        k_noise, k_samples = jax.random.split(key)
        x0, n = self.means(state, batch), self.side**2
        keys = numbered(k_samples, jnp.arange(n))
        noise, asked = self.noise(keys, batch["image"].shape[1:]), self.first_asked(batch, n)
        samples, steps = self._draw(state, noise, keys, asked, None, trace=True)
        assert steps is not None
        sums = self.evaluate(state, {**batch, "valid": jnp.ones(len(x0), bool)}, key)
        levels = middles(self.noise_distribution, self.path, MEASURED)
        error = jnp.stack([sums[f"error_at_{level:.3g}"].total for level in levels]) / len(x0)
        return denoising_preview.pictures(
            self.seen(state, samples),
            x0,
            steps.x,
            self.sampling.schedule.sigmas(self.path),
            (levels, error),
            key=k_noise,
            side=self.side,
            seen=functools.partial(self.seen, state),
            spread=0.5 if self.latent is None else 1.0,
        )

    def _error(self, net: NetWithMore, x0: Array, eps: Array, t: Float[Array, " b"]) -> tuple[Float[Array, " b"], Any]:
        """Return each row's mean squared error of the net's output, and what else the net returned."""
        return output_error(net, self.path, self.prediction, x0, eps, t)

    def _weighted(self, params: Tree, error: Array, t: Array, u: Array) -> Float[Array, " b"]:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        slope = log_snr_slope(self.noise_distribution, u, self.path)
        return self.weighting.loss(params, error, self.prediction.out(alpha, sigma), alpha, sigma, slope)

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
        asked, null = self.asked_of_both(state, guide, condition)
        return self.sampling.run(
            self.conditioned(state),
            self.path,
            noise,
            keys,
            condition=asked,
            null=null,
            guide=self.guiding(guide),
            trace=trace,
        )
