"""The latents of a frozen autoencoder, in place of pixels."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.nn.interfaces import Autoencoder, require
from jaxgen.objectives.checks import check_divides
from jaxgen.objectives.moments import drawn
from jaxgen.state import Net
from jaxgen.typing import Batch, Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """Where a denoiser works: latents of an autoencoder, of mean 0 and deviation 1 on what that was trained on.

    What the collection "latent" of the autoencoder measured is taken off and put back here, and nowhere else. A batch
    may hold `latent`, the moments that the autoencoder would give, computed once and for all (data/prepared.py).
    Source: arXiv:2112.10752.
    """

    autoencoder: Learner
    """Frozen: with `weights`, and without an optimizer."""

    def __post_init__(self) -> None:
        if self.autoencoder.optimizer is not None:
            raise UserError("objective.latent.autoencoder has an optimizer; a denoiser needs latents that stand still")

    @property
    def _net(self) -> Any:
        return self.autoencoder.module

    def check(self, spec: Spec) -> None:
        """Raise UserError where the images have no latents."""
        require(self._net, Autoencoder, "latent.autoencoder")
        check_divides(self._net.factor, spec["image"].shape[1:])
        wanted = (*self.shape(spec["image"].shape[1:])[:2], 2 * self._net.channels)
        if "latent" in spec and spec["latent"].shape[1:] != wanted:
            raise UserError(
                f"the data's latents are {'×'.join(map(str, spec['latent'].shape[1:]))} and this autoencoder's "
                f"{'×'.join(map(str, wanted))} (means and variances); prepare them with this autoencoder"
            )

    def shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the latent of an image of this shape."""
        return image[0] // self._net.factor, image[1] // self._net.factor, self._net.channels

    def encode(self, variables: Any, batch: Batch, image: Float[Array, "b h w c"]) -> Float[Array, "b i j m"]:
        """Return the moments of the batch's latents: those that it holds, or else of the images."""
        if "latent" in batch:
            return batch["latent"].astype(jnp.float32)
        return self._net.apply(variables, image, train=False, method="encode")

    def draw(
        self, variables: Any, moments: Float[Array, "b i j m"], noise: Float[Array, "b i j k"] | None
    ) -> Float[Array, "b i j k"]:
        """Return latents drawn from their distributions, or without noise their means, as a denoiser sees them."""
        latent = drawn(moments, noise)
        where = variables["latent"]
        return (latent - where["mean"][None, None, None]) / where["std"][None, None, None]

    def decode(self, variables: Any, latent: Float[Array, "b i j k"]) -> Float[Array, "b h w c"]:
        """Return the images of latents as a denoiser sees them."""
        where = variables["latent"]
        latent = latent * where["std"][None, None, None] + where["mean"][None, None, None]
        return self._net.apply(variables, latent, train=False, method="decode")

    def init(self, key: PRNGKeyArray, spec: Spec, total_steps: int) -> Net:
        """Make the autoencoder's Net."""
        image = jnp.zeros((1, *spec["image"].shape[1:]))
        return self.autoencoder.init(key, image, total_steps=total_steps)


def variables(net: Net) -> Any:
    """Return what a module's methods are applied with."""
    return {"params": net.params, **net.stats}
