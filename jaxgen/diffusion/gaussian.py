"""Mixtures of Gaussians, whose denoiser, density and samples are known exactly: test cases for solvers and guidance."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.typing import Condition


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianMixture:
    """Round Gaussians in d dimensions; as labelled data, component i is class i.

    With noise of level sigma added it is again such a mixture, of variances std² + sigma², so everything is exact at
    every noise level. Points are [b d] of any float type.
    """

    means: tuple[tuple[float, ...], ...]
    """d numbers for each of the n components."""
    stds: tuple[float, ...]
    """Standard deviation of each component on every axis, or one for all."""
    weights: tuple[float, ...] = ()
    """Share of each component; () for equal shares. They are divided by their sum."""

    def __post_init__(self) -> None:
        n = len(self.means)
        if not n or len({len(mean) for mean in self.means}) != 1:
            raise UserError("GaussianMixture.means has at least one row, all of one length")
        if len(self.stds) not in (1, n) or min(self.stds) <= 0:
            raise UserError(f"GaussianMixture.stds has 1 or {n} entries above 0; got {self.stds}")
        if len(self.weights) not in (0, n) or min(self.weights, default=1) <= 0:
            raise UserError(f"GaussianMixture.weights has no or {n} entries above 0; got {self.weights}")

    def denoise(self, x: Float[Array, "b d"], sigma: Float[Array, ""]) -> Float[Array, "b d"]:
        """Return the mean of x0 given x = x0 + sigma eps; at inf, where x is eps, the mean of the data."""
        return self._denoised(x, sigma, jnp.asarray(np.log(self._shares()), x.dtype)[None])

    def denoise_labelled(
        self, x: Float[Array, "b d"], sigma: Float[Array, ""], condition: Condition
    ) -> Float[Array, "b d"]:
        """Return the same for labelled data; condition["label"] f32[b n+1] weighs the components and,
        last, the whole mixture (null).
        """
        label = condition["label"]
        shares = label[:, :-1] + label[:, -1:] * jnp.asarray(self._shares(), label.dtype)[None]
        tiny = jnp.finfo(x.dtype).tiny  # for classes of weight 0, and of negative weight
        return self._denoised(x, sigma, jnp.log(jnp.maximum(shares.astype(x.dtype), tiny)))

    def log_density(self, x: Float[Array, "b d"], sigma: float | Float[Array, ""] = 0.0) -> Float[Array, " b"]:
        """Return ln p(x) at a finite level."""
        variance = self._variances(x) + sigma**2
        log_p = self._log_ratio(x, variance) - x.shape[1] / 2 * jnp.log(2 * jnp.pi * variance)[None]
        return jax.nn.logsumexp(log_p + jnp.asarray(np.log(self._shares()), x.dtype)[None], axis=1)

    def density(self, x: Float[Array, "b d"], sigma: float | Float[Array, ""] = 0.0) -> Float[Array, " b"]:
        """Return p(x) at a finite level."""
        return jnp.exp(self.log_density(x, sigma))

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draw n points of clean data."""
        which, noise = jax.random.split(key)
        component = jax.random.choice(which, len(self.means), (n,), p=jnp.asarray(self._shares()))
        means = jnp.asarray(self.means, jnp.float32)
        stds = jnp.sqrt(self._variances(means))
        return means[component] + stds[component][:, None] * jax.random.normal(noise, (n, means.shape[1]))

    def _denoised(
        self, x: Float[Array, "b d"], sigma: Float[Array, ""], log_shares: Float[Array, "_ n"]
    ) -> Float[Array, "b d"]:
        variance = self._variances(x)
        total = variance + sigma**2
        # Terms common to all components are left out; at inf the widths are equal, so they are common too.
        width = jnp.where(jnp.isinf(sigma), 0.0, jnp.log(total))
        posterior = jax.nn.softmax(log_shares + self._log_ratio(x, total) - x.shape[1] / 2 * width[None], axis=1)
        kept = (1 / (1 + sigma**2 / variance))[None, :, None]
        means = jnp.asarray(self.means, x.dtype)[None]
        return (posterior[:, :, None] * (means + kept * (x[:, None] - means))).sum(1)

    def _log_ratio(self, x: Float[Array, "b d"], variance: Float[Array, " n"]) -> Float[Array, "b n"]:
        distance = ((x[:, None] - jnp.asarray(self.means, x.dtype)[None]) ** 2).sum(-1)
        return -distance / (2 * variance[None])

    def _variances(self, x: Float[Array, "b d"]) -> Float[Array, " n"]:
        return jnp.broadcast_to(jnp.asarray(self.stds, x.dtype) ** 2, (len(self.means),))

    def _shares(self) -> np.ndarray:
        shares = np.asarray(self.weights or (1.0,) * len(self.means))
        return shares / shares.sum()
