"""Prediction types, what the output of a net means: its target in training, and the denoised image in sampling.

Of z = alpha x0 + sigma eps f32[b *s] the net sees scale·z and a number that stands for the noise level; alpha and sigma
are f32[] or f32[b]. For every prediction type `denoised(target(x0, eps), z) == x0`, and d denoised / d output is the
number `out`, up to its sign: an error of the output, times out, is an error of x0.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.diffusion import path as paths
from jaxgen.diffusion.path import Path
from jaxgen.diffusion.quantities import Data, Eps, Level, Quantity, Score, rows
from jaxgen.errors import UserError


@runtime_checkable
class Prediction(Protocol):
    """The prediction type: the meaning of a net's output F f32[b *s]."""

    def check(self, path: Path) -> None:
        """Raise UserError where a net cannot be trained to predict this on this path."""
        ...

    def target(
        self,
        x0: Float[Array, " b *s"],
        eps: Float[Array, " b *s"],
        alpha: Float[Array, "*l"],
        sigma: Float[Array, "*l"],
    ) -> Float[Array, " b *s"]:
        """Return what F should be, the target of training."""
        ...

    def denoised(
        self,
        output: Float[Array, " b *s"],
        z: Float[Array, " b *s"],
        alpha: Float[Array, "*l"],
        sigma: Float[Array, "*l"],
    ) -> Float[Array, " b *s"]:
        """Return the estimate of x0 that an output means."""
        ...

    def out(self, alpha: Float[Array, "*l"], sigma: Float[Array, "*l"]) -> Float[Array, "*l"]:
        """Return |d denoised / d output|."""
        ...

    def scale(self, alpha: Float[Array, "*l"], sigma: Float[Array, "*l"]) -> Float[Array, "*l"]:
        """Return the factor by which z is multiplied before the net sees it."""
        ...

    def noise(self, alpha: Float[Array, "*l"], sigma: Float[Array, "*l"], t: Float[Array, "*l"]) -> Float[Array, "*l"]:
        """Return the number by which the net knows the noise level."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Direct:
    """The net predicts one of the five quantities as it is, from z as it is and from t times a factor."""

    quantity: Quantity = Eps()
    time_scale: float = 1.0
    """Factor of t: 1000 brings the t of a flow to the range of a table of 1000 betas, as sinusoidal embeddings need."""

    def check(self, path: Path) -> None:
        least, greatest = paths.ratios(path)
        name = type(self.quantity).__name__
        if np.isinf(greatest) and isinstance(self.quantity, Eps | Score):
            raise UserError(
                f"{name} says nothing about x0 where the path ends in pure noise, as {path} does; "
                "predict V, Velocity or X0, or take another path"
            )
        if least == 0 and isinstance(self.quantity, Score):
            raise UserError(f"{name} is infinite where the path begins without noise, as {path} does; predict Eps")

    def target(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        return self.quantity.of(x0, eps, alpha, sigma)

    def denoised(self, output: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        return self.quantity.x0(output, z, alpha, sigma)

    def out(self, alpha: Level, sigma: Level) -> Level:
        return self.quantity.gain(alpha, sigma)

    def scale(self, alpha: Level, sigma: Level) -> Level:
        return jnp.ones_like(alpha)

    def noise(self, alpha: Level, sigma: Level, t: Level) -> Level:
        return t * self.time_scale


@dataclasses.dataclass(frozen=True, kw_only=True)
class EdmPreconditioning:
    """EDM's preconditioning: input and target have unit variance at every sigma (arXiv:2206.00364, table 1)."""

    sigma_data: float = 0.5
    """Standard deviation of the data."""

    def check(self, path: Path) -> None:
        if self.sigma_data <= 0:
            raise UserError(f"EdmPreconditioning.sigma_data is a standard deviation, above 0; got {self.sigma_data}")
        alpha, _ = paths.at(path, np.linspace(*path.span(), 3))
        if (alpha != 1).any():
            raise UserError(f"EdmPreconditioning needs a path that leaves x0 unscaled, as Edm() does; {path} does not")

    def target(self, x0: Data, eps: Data, alpha: Level, sigma: Level) -> Data:
        # (x0 - c_skip z) / c_out with z written out: at little noise both terms of that difference are nearly x0.
        root = jnp.hypot(sigma, self.sigma_data)
        return rows(sigma / (self.sigma_data * root), x0) * x0 - rows(self.sigma_data / root, x0) * eps

    def denoised(self, output: Data, z: Data, alpha: Level, sigma: Level) -> Data:
        skip = self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        return rows(skip, z) * z + rows(self.out(alpha, sigma), z) * output

    def out(self, alpha: Level, sigma: Level) -> Level:
        return sigma * self.sigma_data / jnp.hypot(sigma, self.sigma_data)

    def scale(self, alpha: Level, sigma: Level) -> Level:
        return 1 / jnp.hypot(sigma, self.sigma_data)

    def noise(self, alpha: Level, sigma: Level, t: Level) -> Level:
        return jnp.log(sigma) / 4
