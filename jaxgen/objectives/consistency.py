"""Consistency tuning: a trained denoiser learns to go to the end of its path in one evaluation."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgen.diffusion.consistency import Doubling, Gaps, Multistep, distance, per_gap
from jaxgen.diffusion.denoiser import NetWithMore, denoised
from jaxgen.diffusion.noise_distributions import LogNormal, NoiseDistribution, middles
from jaxgen.diffusion.quantities import rows as by_row
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Given, SamplingSchedule
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Scalars, first_state, joint_step
from jaxgen.noise import numbered
from jaxgen.objective import Metrics
from jaxgen.objectives import denoising_preview
from jaxgen.objectives.denoising import MEASURED, Denoising
from jaxgen.objectives.denoising_preview import STRIPS
from jaxgen.pictures import previews
from jaxgen.pictures.panels import Picture
from jaxgen.state import State
from jaxgen.typing import Batch, Condition, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConsistencyTuning(Denoising):
    """Easy consistency tuning: a trained denoiser becomes a consistency function (ECT, arXiv:2406.14548).

    It makes samples in one or two evaluations. `net.weights` are those of the trained run, `path` and `prediction` its
    own; the estimate of x0 has to be x itself where there is no noise. The two points of a pair share x0, eps,
    condition and dropout.
    """

    noise_distribution: NoiseDistribution = LogNormal(mean=-1.1, std=2.0)
    """The noise level of the farther point of each pair; the paper's default is for 32×32 pixels."""
    gaps: Gaps = Doubling()
    """Where the nearer one lies."""
    flat: float = 1e-3
    """Distance below which the loss is quadratic, so that its gradient is finite where two points agree."""
    schedule: SamplingSchedule = Given(levels=(80.0, 0.821, 0.0))
    """The noise levels at which samples are made, an evaluation each; the paper's two."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_field(self, "flat", self.flat > 0, "above 0")

    @property
    def sampling(self) -> Sampling:
        """How samples are made."""
        return Sampling(solver=Multistep(), schedule=self.schedule)

    def check_sampling(self, *, guide: bool) -> None:
        """Raise UserError where the schedule does not fit the path, or a guiding model is there."""
        if guide:
            raise UserError("ConsistencyTuning takes no guiding model: leave it out")
        self.sampling.check(self.path, conditional=bool(self.conditions()), droppable=self.droppable, guide=guide)

    def with_options(self, options: Mapping[str, Any]) -> "ConsistencyTuning":
        """Return the objective with another `schedule`; raise UserError for other options."""
        if other := options.keys() - {"schedule"}:
            raise UserError(f"ConsistencyTuning has no {', '.join(sorted(other))} to choose; it has a schedule")
        return dataclasses.replace(self, **options)

    def protocol(self) -> dict[str, Any]:
        """Say how samples are made."""
        how = self.sampling
        return {"solver": repr(how.solver), "schedule": repr(how.schedule), "nfe": how.nfe(self.path)}

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where data, net, path, prediction type and schedule do not fit each other."""
        self.check_data(spec, classes)
        with jax.transfer_guard("allow"):
            error = float(self.prediction.out(jnp.float32(1), jnp.float32(0)))
        if error:
            raise UserError(
                f"{self.prediction} leaves the net free to change images without noise, where a consistency function "
                "returns them as they are; tune a net with EdmPreconditioning, or one that predicts Eps, V or Velocity"
            )
        self.check_sampling(guide=False)
        jax.eval_shape(functools.partial(self.init, spec=spec), jax.random.key(0))  # the net refuses unfit sizes

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        return first_state(self.first_nets(key, jax.random.split(key)[0], spec))

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update on pairs of points of the same paths."""
        k_level, k_noise, k_drop, k_net = jax.random.split(key, 4)
        sigma, r = self._pairs(self.noise_distribution.draw(k_level, len(batch["image"]), self.path)[0], state.step)
        rows = self.rows(batch, k_noise, k_drop) | {"sigma": sigma, "r": r}

        def loss(params: Tree, stats: Tree, rows: Tree, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            x0 = self.clean(params, stats, rows)
            condition, moved_texts = self.asked_in_training(params, stats, rows, key)
            net = self.net_in_training(params, stats, condition, key)
            apart, end, moved = self._apart(net, x0, rows["eps"], rows["sigma"], rows["r"])
            error = jnp.square(end - x0).mean()
            weighted = per_gap(apart, rows["sigma"], rows["r"])
            return weighted.mean(), ({**stats, **moved_texts, "net": moved}, {"error": error, "apart": apart.mean()})

        return joint_step(
            self.learners, state, rows, k_net, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Sum, over the valid rows, the loss and, at eight noise levels, the squared error of the end of the path.

        For images under much noise that error is no fault: the end of a path is one of many images.
        """
        x0 = self.means(state, batch)
        net = self.fixed_net(state, self.asked(state, batch)[0])

        def at(eps: Array, u: Array) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
            sigma, r = self._pairs(self.noise_distribution.at(u, self.path), state.step)
            apart, end, _ = self._apart(net, x0, eps, sigma, r)
            return jnp.square(end - x0).mean(tuple(range(1, x0.ndim))), per_gap(apart, sigma, r)

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
        del guide
        return self._draw(state, noise, keys, condition, self.sampling)

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Show samples, the same in one evaluation, and test images mapped to the ends of their paths from noise."""
        k_noise, k_samples = jax.random.split(key)
        x0, n = self.means(state, batch), self.side**2
        keys = numbered(k_samples, jnp.arange(n))
        start, asked = self.noise(keys, batch["image"].shape[1:]), self.first_asked(batch, n)
        once = dataclasses.replace(self, schedule=Given(levels=(float(self.schedule.sigmas(self.path)[0]), 0.0)))
        few = jax.tree.map(lambda x: x[:STRIPS], {"x0": x0, "asked": self.asked(state, batch)[0]})
        eps = jax.random.normal(k_noise, few["x0"].shape)
        net = self.fixed_net(state, few["asked"])
        levels = middles(self.noise_distribution, self.path, MEASURED)
        ends = []
        for level in levels:
            sigma = jnp.full(len(eps), level)
            ends.append(self._jump(net, few["x0"] + level * eps, sigma)[0])
        return {
            "samples": previews.grid(self._draw(state, start, keys, asked, self.sampling), self.side),
            "one_evaluation": previews.grid(self._draw(state, start, keys, asked, once.sampling), self.side),
            "ends": denoising_preview.strip(ends, levels, functools.partial(self.seen, state)),
        }

    def _pairs(self, t: Float[Array, " b"], step: Int[Array, ""]) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
        """Return the noise levels of both points, sigma of the farther and r of the nearer."""
        sigma = self.path.sigma(t) / self.path.alpha(t)
        return sigma, self.gaps.lower(sigma, step / self.total_steps)

    def _jump(self, net: NetWithMore, x: Float[Array, "b *s"], sigma: Float[Array, " b"]) -> tuple[Any, Any]:
        """Return f(x, sigma), x itself where there is no noise, and what else the net returned."""
        end, more = denoised(net, self.path, self.prediction, x, jnp.where(sigma > 0, sigma, 1.0))
        return jnp.where(by_row(sigma, x) > 0, end.astype(jnp.float32), x), more

    def _apart(
        self, net: NetWithMore, x0: Array, eps: Array, sigma: Float[Array, " b"], r: Float[Array, " b"]
    ) -> tuple[Float[Array, " b"], Float[Array, "b *s"], Any]:
        """Return how far f is from its target in each row, f, and what else the net returned."""
        end, more = self._jump(net, x0 + by_row(sigma, x0) * eps, sigma)
        target, _ = self._jump(net, x0 + by_row(r, x0) * eps, r)
        return distance(end, jax.lax.stop_gradient(target), self.flat), end, more

    def _draw(
        self, state: State, noise: Float[Array, "b *z"], keys: Key[Array, " b"], condition: Condition, how: Sampling
    ) -> Float[Array, "b *s"]:
        asked, _ = self.asked(state, condition)
        samples, _ = how.run(self.conditioned(state), self.path, noise, keys, condition=asked)
        return self.seen(state, samples)
