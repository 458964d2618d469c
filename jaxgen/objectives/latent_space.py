"""The latents of a frozen autoencoder, in place of pixels, for denoisers and for both sides of a game."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.nn.interfaces import Autoencoder, require
from jaxgen.objectives.checks import check_divides
from jaxgen.objectives.moments import drawn
from jaxgen.pictures.pixels import to_float
from jaxgen.state import Net, State
from jaxgen.typing import Batch, Spec


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """Where an objective works: latents of an autoencoder, of mean 0 and deviation 1 on what that was trained on.

    What the collection "latent" of the autoencoder measured is taken off and put back here, and nowhere else. A batch
    may hold `latent`, the moments that the autoencoder would give, computed once and for all (data/prepared.py).
    Source: arXiv:2112.10752.
    """

    autoencoder: Learner
    """Frozen: with `weights`, and without an optimizer."""

    def __post_init__(self) -> None:
        if self.autoencoder.optimizer is not None:
            raise UserError("objective.latent.autoencoder has an optimizer; latents must stand still")

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
        """Return latents drawn from their distributions, or without noise their means, as the nets see them."""
        latent = drawn(moments, noise)
        where = variables["latent"]
        return (latent - where["mean"][None, None, None]) / where["std"][None, None, None]

    def decode(self, variables: Any, latent: Float[Array, "b i j k"]) -> Float[Array, "b h w c"]:
        """Return the images of latents as the nets see them."""
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


def shape_of(latent: LatentSpace | None, image: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of what the nets see of an image of this shape: the image itself without latents."""
    return image if latent is None else latent.shape(image)


def means(latent: LatentSpace | None, state: State, batch: Batch) -> Float[Array, "b *s"]:
    """Return what the nets see of a batch: images, or the means of their latents."""
    image = to_float(batch["image"])
    if latent is None:
        return image
    whole = variables(state.nets["autoencoder"])
    return latent.draw(whole, latent.encode(whole, batch, image), None)


def seen(latent: LatentSpace | None, state: State, x: Float[Array, "b *s"]) -> Float[Array, "b *t"]:
    """Return the images of what the nets make."""
    return x if latent is None else latent.decode(variables(state.nets["autoencoder"]), x)


def moments(latent: LatentSpace | None, state: State, batch: Batch) -> dict[str, Array]:
    """Return the moments of a batch's latents, by the name that `encode` finds them by; {} without latents."""
    if latent is None:
        return {}
    return {"latent": latent.encode(variables(state.nets["autoencoder"]), batch, to_float(batch["image"]))}
