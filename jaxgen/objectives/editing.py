"""Pictures edited by any objective with a denoiser: pixels in, pixels out, whatever is denoised."""

from jaxtyping import Array, Float, Key

from jaxgen.diffusion import editing
from jaxgen.diffusion.sampling import Sampling
from jaxgen.objectives.denoising import Denoising
from jaxgen.state import State
from jaxgen.typing import Condition


def edited(
    of: Denoising,
    sampling: Sampling,
    state: State,
    image: Float[Array, "b *s"],
    noise: Float[Array, "b *z"],
    keys: Key[Array, " b"],
    condition: Condition,
    guide: State | None,
    strength: float,
) -> Float[Array, "b *s"]:
    """Return images noised as far as `strength` says and denoised again; see `diffusion.editing.edit`.

    Of latents, strength 0 gives what the autoencoder makes of an image.
    """
    asked, null = of.asked_of_both(state, guide, condition)
    x = editing.edit(
        sampling,
        of.conditioned(state),
        of.path,
        of.means(state, {"image": image}),
        noise,
        keys,
        sigma=editing.level(strength),
        condition=asked,
        null=null,
        guide=of.guiding(guide),
    )
    return of.seen(state, x)


def inverted(
    of: Denoising, sampling: Sampling, state: State, image: Float[Array, "b *s"], condition: Condition
) -> Float[Array, "b *z"]:
    """Return the noise from which sampling without guidance leads to images; see `diffusion.editing.invert`."""
    denoise = of.denoise(state, of.asked(state, condition)[0])
    return editing.invert(denoise, of.means(state, {"image": image}), sampling.schedule.sigmas(of.path))
