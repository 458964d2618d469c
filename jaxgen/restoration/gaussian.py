"""Posteriors that are known exactly, of Gaussian data and of mixtures: test cases, and the Wiener filter."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.diffusion.gaussian import GaussianMixture


@dataclasses.dataclass(frozen=True, eq=False)
class Gaussian:
    """Vectors of a Gaussian with any covariance. With noise of level sigma added its covariance is C + sigma² I."""

    mean: Any
    """f64[d]"""
    covariance: Any
    """f64[d d]"""

    @classmethod
    def of(cls, rows: np.ndarray) -> "Gaussian":
        """Return the Gaussian with the mean and covariance of rows f32[n d]."""
        rows = np.asarray(rows, np.float64)
        return cls(rows.mean(0), np.cov(rows, rowvar=False, bias=True))

    @functools.cached_property
    def _axes(self) -> tuple[np.ndarray, np.ndarray]:
        return np.linalg.eigh(self.covariance)

    def denoise(self, x: Float[Array, "b d"], sigma: Float[Array, ""]) -> Float[Array, "b d"]:
        """Return the mean of x0 given x = x0 + sigma eps; at inf the mean of the data."""
        variances, axes = (jnp.asarray(part, x.dtype) for part in self._axes)
        mean = jnp.asarray(self.mean, x.dtype)[None]
        kept = jnp.where(jnp.isinf(sigma), 0.0, variances / (variances + jnp.where(jnp.isinf(sigma), 1.0, sigma) ** 2))
        return mean + jnp.matmul(jnp.matmul(x - mean, axes, precision="highest") * kept[None], axes.T)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n d"]:
        """Draw n vectors."""
        variances, axes = self._axes
        root = jnp.asarray(axes * np.sqrt(np.maximum(variances, 0)), jnp.float32)
        return jnp.asarray(self.mean, jnp.float32)[None] + jax.random.normal(key, (n, len(root))) @ root.T

    def posterior(self, matrix: np.ndarray, y: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the means f64[n d] and the covariance f64[d d] of x0 given y = A x0 + noise, for rows y f[n m].

        The means are the Wiener filter's: the best that is linear in y, whatever the data.
        """
        crossed = self.covariance @ matrix.T
        total = matrix @ crossed + noise**2 * np.eye(len(matrix))
        gain = crossed @ np.linalg.pinv(total, hermitian=True)
        return self.mean + (y - self.mean @ matrix.T) @ gain.T, self.covariance - gain @ crossed.T


def mixture_posterior(
    data: GaussianMixture, matrix: np.ndarray, y: np.ndarray, noise: float
) -> tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    """Return the components' weights f64[k], and each one's mean f64[d] and covariance f64[d d], given one y f[m]."""
    means = np.asarray(data.means)
    stds = np.broadcast_to(data.stds, len(means))
    shares = np.log(np.asarray(data.weights or (1.0,) * len(means)))
    logs, parts = [], []
    for share, mean, std in zip(shares, means, stds, strict=True):
        own = Gaussian(mean, std**2 * np.eye(len(mean)))
        total = std**2 * matrix @ matrix.T + noise**2 * np.eye(len(matrix))
        off = y - matrix @ mean
        logs.append(share - 0.5 * (off @ np.linalg.solve(total, off) + np.linalg.slogdet(total)[1]))
        made, covariance = own.posterior(matrix, y[None], noise)
        parts.append((made[0], covariance))
    weights = np.exp(np.asarray(logs) - max(logs))
    return weights / weights.sum(), parts
