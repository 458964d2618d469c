"""How much an error counts at each noise level.

A weight w(λ) is stated on the squared error of x0, as in the literature's tables; λ = 2 ln(alpha / sigma) is the log of
the signal-to-noise ratio. What is measured is the error of the net's output; times out² it is that of x0. So one
formula serves all prediction types: loss = w · out² · error.
"""

import dataclasses
import math
from statistics import NormalDist
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.typing import Tree

Rows = Float[Array, " b"]


@runtime_checkable
class Weighting(Protocol):
    """A loss for each row; its parameters, if it has any, are learned together with the denoiser's."""

    def module(self) -> nn.Module | None:
        """Return the net that the weighting learns, called with (alpha, sigma); None where it has none."""
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

        `params` are those of `module`, {} for none. `out` is |d denoised / d output|, and `slope` is -dλ/du of the
        noise distribution (`log_snr_slope`).
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unweighted:
    """The error of the net's output as it is: L_simple of DDPM (arXiv:2006.11239, equation 14), and flow matching."""

    def module(self) -> nn.Module | None:
        return None

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        return error


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdmWeight:
    """1 / sigma² + 1 / sigma_data² where alpha is 1 (arXiv:2206.00364, table 1); EdmPreconditioning makes it 1."""

    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.sigma_data <= 0:
            raise UserError(f"EdmWeight.sigma_data is a standard deviation, above 0; got {self.sigma_data}")

    def module(self) -> nn.Module | None:
        return None

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        # out falls with sigma for all but X0: their ratio stays finite where 1 / sigma² alone would overflow.
        ratio = out / jnp.maximum(sigma, 1e-30)
        return error * ((alpha * ratio) ** 2 + (out / self.sigma_data) ** 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinSnr:
    """The signal-to-noise ratio up to gamma (arXiv:2303.09556); the same loss for every prediction type."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if self.gamma <= 0:
            raise UserError(f"MinSnr.gamma is a signal-to-noise ratio, above 0; got {self.gamma}")

    def module(self) -> nn.Module | None:
        return None

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        return error * jnp.minimum((alpha / sigma) ** 2, self.gamma) * out**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sigmoid:
    """sigmoid(bias - λ) on the error of eps, for any noise distribution (SiD2, arXiv:2410.19324).

    On x0 that is -1/2 dλ/du · exp(bias) · sigmoid(λ - bias).
    """

    bias: float
    """Log of the signal-to-noise ratio beyond which fine detail is not worth learning."""

    def module(self) -> nn.Module | None:
        return None

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        log_snr = 2 * (jnp.log(alpha) - jnp.log(sigma))
        weight = 0.5 * slope * math.exp(self.bias) * jax.nn.sigmoid(log_snr - self.bias)
        return error * weight * out**2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
    """loss / exp(u) + u with a learned u(sigma), so that all noise levels weigh alike (EDM2, arXiv:2312.02696).

    For a fixed loss L the best u is ln L. `LogLoss` is its form.
    """

    base: Weighting
    """A weighting that learns nothing itself."""
    channels: int = 128

    def __post_init__(self) -> None:
        if self.base.module() is not None:
            raise UserError(f"Uncertainty.base is a weighting that learns nothing itself; got {self.base}")

    def module(self) -> nn.Module | None:
        return LogLoss(channels=self.channels)

    def loss(self, params: Tree, error: Rows, out: Rows, alpha: Rows, sigma: Rows, slope: Rows) -> Rows:
        base = self.base.loss({}, error, out, alpha, sigma, slope)
        log = self.log_loss(params, alpha, sigma)
        return base / jnp.exp(log) + log

    def log_loss(self, params: Tree, alpha: Rows, sigma: Rows) -> Rows:
        """Return u, the logarithm of the loss that is expected at a noise level."""
        log_loss: Any = LogLoss(channels=self.channels).apply({"params": params}, alpha, sigma, train=False)
        return log_loss


class LogLoss(nn.Module):
    """u as a function of alpha and sigma: linear in cosines of ln(sigma / alpha) / 4, of fixed frequencies."""

    channels: int

    @nn.compact
    def __call__(self, alpha: Float[Array, " b"], sigma: Float[Array, " b"], *, train: bool) -> Float[Array, " b"]:
        n = self.channels
        kernel = self.param("kernel", nn.initializers.zeros, (n,))  # u = 0: training begins with the base's loss
        log_ratio = jnp.clip(jnp.log(sigma) - jnp.log(alpha), -20.0, 20.0)  # infinite at pure noise and without noise
        # The paper draws normal frequencies; their quantiles serve as well and need not be kept with the weights.
        frequency = np.array([[2 * np.pi * NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)]], np.float32)
        phase = np.array([[2 * np.pi * (i * (math.sqrt(5) - 1) / 2 % 1) for i in range(n)]], np.float32)
        features = jnp.cos(log_ratio[:, None] / 4 * frequency + phase)
        return features @ kernel * math.sqrt(2 / n)
