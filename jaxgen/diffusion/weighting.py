"""How much an error counts at each noise level.

A weight w(λ) is stated on the squared error of x0, as the literature's tables do, λ = 2 ln(alpha / sigma) being the
log of the signal-to-noise ratio. What is measured is the error of the net's output; times out² it is that of x0. So
one formula serves all predictions: loss = w · out² · error.
"""

import dataclasses
import math
from statistics import NormalDist
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.typing import Tree

Rows = Float[Array, " b"]


@runtime_checkable
class Weighting(Protocol):
    """A loss for each row; its parameters, if it has any, are learned along with the net's."""

    def init(self, key: PRNGKeyArray) -> Tree:
        """Return the weighting's own parameters, {} where it has none."""
        ...

    def loss(
        self,
        params: Tree,
        error: Float[Array, " b"],
        out: Float[Array, " b"],
        alpha: Float[Array, " b"],
        sigma: Float[Array, " b"],
        slope: Float[Array, " b"],
    ) -> Float[Array, " b"]:
        """Weigh each row's mean squared error of the net's output.

        `out` is |d denoised / d output|, `slope` is -dλ/du over the training's levels (`levels.slope`).
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unweighted:
    """The error of the net's output as it is: L_simple of DDPM (arXiv:2006.11239, equation 14), and flow matching."""

    def init(self, key: PRNGKeyArray) -> Tree:
        return {}

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        return error


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdmWeight:
    """1 / sigma² + 1 / sigma_data² for x_t = x0 + sigma eps (arXiv:2206.00364, table 1), which Karras cancels to 1."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise UserError(f"EdmWeight.sigma_data is a standard deviation, above 0; got {self.sigma_data}")

    def init(self, key: PRNGKeyArray) -> Tree:
        return {}

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        # out falls with sigma for all but X0: their ratio stays finite where 1 / sigma² alone would overflow.
        ratio = out / jnp.maximum(sigma, 1e-30)
        return error * ((alpha * ratio) ** 2 + (out / self.sigma_data) ** 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinSnr:
    """The signal-to-noise ratio up to gamma (arXiv:2303.09556); of the error of x0 as of any other prediction's."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise UserError(f"MinSnr.gamma is a signal-to-noise ratio, above 0; got {self.gamma}")

    def init(self, key: PRNGKeyArray) -> Tree:
        return {}

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        return error * jnp.minimum((alpha / sigma) ** 2, self.gamma) * out**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """sigmoid(bias - λ) on the error of eps, whatever levels are drawn (SiD2, arXiv:2410.19324).

    On x0 that is -1/2 dλ/du · exp(bias) · sigmoid(λ - bias).
    """

    bias: float
    """Log of the signal-to-noise ratio beyond which fine detail is not worth learning."""

    def init(self, key: PRNGKeyArray) -> Tree:
        return {}

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        log_snr = 2 * (jnp.log(alpha) - jnp.log(sigma))
        weight = 0.5 * slope * math.exp(self.bias) * jax.nn.sigmoid(log_snr - self.bias)
        return error * weight * out**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """loss / exp(u) + u with a learned u(sigma), so that all levels weigh alike (EDM2, arXiv:2312.02696).

    For a given loss L the best u is ln L. It is linear in cosines of ln(sigma / alpha) / 4, of fixed frequencies.
    """

    base: Weighting
    """A weighting without parameters of its own."""
    channels: int = 128

    def init(self, key: PRNGKeyArray) -> Tree:
        return {"kernel": jnp.zeros(self.channels)}  # u = 0: training begins with the base's loss

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        base = self.base.loss({}, error, out, alpha, sigma, slope)
        log = self.log_loss(params, alpha, sigma)
        return base / jnp.exp(log) + log

    def log_loss(self, params: Tree, alpha: Rows, sigma: Rows) -> Rows:
        """Return u, the logarithm of the loss that is expected at a noise level."""
        log_ratio = jnp.clip(jnp.log(sigma) - jnp.log(alpha), -20.0, 20.0)  # infinite at pure noise and without noise
        # The paper draws normal frequencies; their quantiles serve as well and need not be kept with the weights.
        n = self.channels
        frequency = np.array([[2 * np.pi * NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]], np.float32)
        phase = np.array([[2 * np.pi * (i * (math.sqrt(5) - 1) / 2 % 1) for i in range(n)]], np.float32)
        features = jnp.cos(log_ratio[:, None] / 4 * frequency + phase)
        return features @ params["kernel"] * math.sqrt(2 / n)
