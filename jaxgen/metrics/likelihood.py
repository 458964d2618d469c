"""How likely the test data are under the model: a number that depends on no feature net."""

import dataclasses
import math
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.data.mixture import Mixture
from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.likelihood import bits_per_dim
from jaxgen.errors import UserError
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.view import View


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likelihood:
    """Likelihood of test examples by the probability-flow ODE: of images in bits per dimension, of points in nats.

    `bits_per_dim` bounds the length of a code for the 8-bit pixels from above, which are spread over their steps by
    uniform noise (arXiv:2011.13456, section 4.3). `log_likelihood` of points comes with `log_likelihood_true` where
    their `source` is a mixture of known density: the data's own, which no model exceeds but by chance.
    """

    rows: int = 360
    """Test examples, from the first on."""
    steps: int = 64
    """Heun steps from the data to noise."""
    probes: int = 0
    """Random vectors of Hutchinson's estimate of the divergence; 0: the exact one, at as many derivatives as an example
    has numbers."""
    sigma_min: float | None = 0.002
    """Level at which data and model are compared; None: the path's own."""
    sigma_max: float | None = 80.0
    """Level that counts as pure noise; None: the path's own."""
    source: Mixture | None = None

    def __post_init__(self) -> None:
        for name, least in dict(rows=1, steps=1, probes=0).items():
            if getattr(self, name) < least:
                raise UserError(f"Likelihood.{name} is {getattr(self, name)}; it must be at least {least}")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError unless the model is one of diffusion, and the source's points are of the data's plane.
        """
        if not outlook.has_density:
            raise UserError(f"{outlook.model} has no likelihood; remove Likelihood from the config's `metrics`")
        if len(outlook.shape) == 3:
            return ["bits_per_dim"]
        if self.source is not None and self.source.centres().shape[1:] != outlook.shape:
            raise UserError(f"Likelihood: {type(self.source).__name__} is not of the data's plane; drop `source`")
        return ["log_likelihood"]

    def measure(self, view: View) -> dict[str, Any]:
        """Return the numbers by name.

        Raises UserError unless the model is one of diffusion.
        """
        real = view.rows("test")
        image, label = real.image[: self.rows], None if real.label is None else real.label[: self.rows]
        if image.ndim == 4:
            image = image + np.random.default_rng(0).uniform(size=image.shape).astype(np.float32) / np.float32(127.5)
        nats = view.log_likelihood(
            image, label,
            steps=self.steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max, probes=self.probes,
        ).astype(np.float64)  # fmt: skip
        if not np.isfinite(nats).all():
            raise UserError("Likelihood: some test examples have no finite likelihood; take more steps")
        about = {"rows": len(nats), "steps": self.steps, "probes": self.probes or "exact"}
        protocol = {"protocol": view.protocol | {"likelihood": about}}
        if image.ndim == 4:
            bits = bits_per_dim(jnp.asarray(nats), math.prod(image.shape[1:]))
            return {"bits_per_dim": float(np.mean(bits))} | protocol
        result = {"log_likelihood": float(nats.mean())}
        if self.source is not None:
            centres = tuple(map(tuple, self.source.centres().tolist()))
            mixture = GaussianMixture(means=centres, stds=(self.source.std,) * len(centres))
            result["log_likelihood_true"] = float(
                np.mean(mixture.log_density(jnp.asarray(image), self.sigma_min or 0.0))
            )
        return result | protocol
