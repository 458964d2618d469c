"""Processes that lead from a damaged image to what it was, drawn by a net that sees the damaged image besides."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.diffusion.denoiser import Net, NetWithMore, denoiser, output_error
from jaxgen.diffusion.noise_distributions import LogNormal, NoiseDistribution
from jaxgen.diffusion.path import Edm, Path
from jaxgen.diffusion.predictions import EdmPreconditioning, Prediction
from jaxgen.diffusion.sampling import Sampling
from jaxgen.noise import normal


@runtime_checkable
class Process(Protocol):
    """What a net learns of x0, which the image was, and x1, which it is, and how x0 is drawn given x1.

    The net that a process is given is bound to x1.
    """

    def check(self) -> None:
        """Raise UserError where the parts of the process do not fit each other."""
        ...

    def at(self, u: Float[Array, " b"]) -> Float[Array, " b"]:
        """Return the time t below which the share u of the draws of training lies."""
        ...

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, " n"]:
        """Draw the times t of n rows of a step."""
        ...

    def error(
        self,
        net: NetWithMore,
        x0: Float[Array, "b *s"],
        x1: Float[Array, "b *s"],
        eps: Float[Array, "b *s"],
        t: Float[Array, " b"],
    ) -> tuple[Float[Array, " b"], Any]:
        """Return each row's mean squared error of the net's output, and what else the net returned."""
        ...

    def sample(self, net: Net, x1: Float[Array, "b *s"], keys: Key[Array, " b"]) -> Float[Array, "b *s"]:
        """Draw one x0 for each x1; the noise of a row is drawn from its own key."""
        ...

    def nfe(self) -> int | None:
        """Return how often the net is evaluated for one sample; None where that depends on the sample."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FromNoise:
    """Diffusion conditioned on x1, from noise to x0 (SR3, arXiv:2104.07636; Palette, arXiv:2111.05826)."""

    path: Path = Edm()
    """How much signal and noise there is at each time."""
    prediction: Prediction = EdmPreconditioning()
    """What the net's output means. Its scaling acts on the noisy image only, never on x1."""
    noise_distribution: NoiseDistribution = LogNormal()
    """Which noise levels training sees."""
    sampling: Sampling = Sampling()
    """How samples are drawn."""

    def check(self) -> None:
        self.prediction.check(self.path)
        self.sampling.check(self.path, conditional=False, droppable=False, guide=False)

    def at(self, u: Float[Array, " b"]) -> Float[Array, " b"]:
        return self.noise_distribution.at(u, self.path)

    def draw(self, key: PRNGKeyArray, n: int) -> Float[Array, " n"]:
        return self.noise_distribution.draw(key, n, self.path)[0]

    def error(
        self,
        net: NetWithMore,
        x0: Float[Array, "b *s"],
        x1: Float[Array, "b *s"],
        eps: Float[Array, "b *s"],
        t: Float[Array, " b"],
    ) -> tuple[Float[Array, " b"], Any]:
        return output_error(net, self.path, self.prediction, x0, eps, t)

    def sample(self, net: Net, x1: Float[Array, "b *s"], keys: Key[Array, " b"]) -> Float[Array, "b *s"]:
        denoise = denoiser(net, self.path, self.prediction)
        noise = normal(keys, 0, x1.shape[1:])
        return self.sampling.run(lambda x, sigma, _: denoise(x, sigma), self.path, noise, keys, condition={})[0]

    def nfe(self) -> int | None:
        return self.sampling.nfe(self.path)
