"""The Schrödinger bridge between pairs, from a damaged image to what it was (I2SB, arXiv:2302.05872)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.diffusion.denoiser import Net, NetWithMore
from jaxgen.diffusion.quantities import rows
from jaxgen.errors import check_field

Rows = Float[Array, " b"]
Data = Float[Array, "b *s"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bridge:
    """A Brownian bridge from x0 at t = 0 to x1 at t = 1, in whose middle most of its noise comes and goes.

    The root of the rate beta rises linearly up to t = 1/2 and falls again as it rose. With V the integral of beta from
    0 to 1 and w the share of it up to t, x_t is (1 - w) x0 + w x1 + noise · sqrt(w (1 - w) V) eps (equation 11), and
    the net predicts (x_t - x0) / sqrt(w V) (equation 12). The paper's tables of 1,000 steps are this to one in 1,000.
    """

    beta_min: float = 0.1
    """beta at both ends; the paper's 1e-4 for each of 1,000 steps."""
    beta_max: float = 0.3
    """What beta would be at t = 1 if its root rose on: 0.3 for JPEG and small images, 1 for blur and holes."""
    noise: float = 1.0
    """Factor of the noise on the way; 0 is the paper's variant without any, OT-ODE."""
    steps: int = 50
    """Evaluations of a sample, at equal distances of t."""
    time_scale: float = 1000.0
    """Factor of t before the net sees it."""

    def __post_init__(self) -> None:
        check_field(self, "beta_min", 0 < self.beta_min < math.inf, "above 0")
        check_field(self, "beta_max", self.beta_min <= self.beta_max < math.inf, "beta_min or more")
        check_field(self, "noise", 0 <= self.noise < math.inf, "0 or more")
        check_field(self, "steps", self.steps >= 1, "at least 1")
        check_field(self, "time_scale", 0 < self.time_scale < math.inf, "above 0")

    def check(self) -> None:
        pass

    def variance(self, t: Float[Array, "*l"]) -> Float[Array, "*l"]:
        """Return the integral of beta from 0 to t."""
        return jnp.where(t < 0.5, self._rising(t), 2 * self._rising(0.5) - self._rising(1 - t))

    def at(self, u: Rows) -> Rows:
        return u

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, " n"]:
        # Stratified: each step sees the whole way. The net cannot be asked at t = 0, where nothing is left to predict.
        return (jnp.arange(n) + jax.random.uniform(key, (n,), minval=1e-3)) / n

    def error(self, net: NetWithMore, x0: Data, x1: Data, eps: Data, t: Rows) -> tuple[Rows, Any]:
        whole = self.variance(jnp.float32(1))
        share = self.variance(t) / whole
        apart = x1 - x0
        x = x0 + rows(share, x0) * apart + self.noise * rows(jnp.sqrt(share * (1 - share) * whole), x0) * eps
        # (x - x0) / sqrt(w V), written out: near t = 0 both are nearly 0.
        target = rows(jnp.sqrt(share / whole), x0) * apart + self.noise * rows(jnp.sqrt(1 - share), x0) * eps
        output, more = net(x, t * self.time_scale)
        return jnp.square(output.astype(jnp.float32) - target).mean(tuple(range(1, x.ndim))), more

    def sample(self, net: Net, x1: Data, keys: Key[Array, " b"]) -> Data:
        times = jnp.linspace(1.0, 0.0, self.steps + 1)
        variances = self.variance(times)

        def step(x: Data, row: tuple[Array, ...]) -> tuple[Data, None]:
            k, t, now, then = row
            x0 = x - jnp.sqrt(now) * net(x, jnp.full(len(x), t * self.time_scale)).astype(x.dtype)
            mean = then / now * x + (1 - then / now) * x0  # of x at the next time, given x and x0 (equation 4)
            fresh = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, k), x.shape[1:]))(keys)
            return mean + self.noise * jnp.sqrt(then * (now - then) / now) * fresh, None

        return jax.lax.scan(step, x1, (jnp.arange(self.steps), times[:-1], variances[:-1], variances[1:]))[0]

    def nfe(self) -> int:
        return self.steps

    def _rising(self, t: Any) -> Any:
        """Return the integral from 0 to t of a beta whose root rises linearly."""
        low, slope = math.sqrt(self.beta_min), math.sqrt(self.beta_max) - math.sqrt(self.beta_min)
        return t * (low * low + t * (low * slope + t * slope * slope / 3))
