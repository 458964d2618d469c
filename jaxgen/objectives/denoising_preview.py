"""What a denoiser shows: samples, images on their way to noise and back, and its error at each noise level."""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.pictures import previews
from jaxgen.pictures.panels import Curves, Panels, Picture

SHOWN, STRIPS = 8, 4  # images in a strip from data to noise or back, and strips

Seen = Callable[[Float[Array, "b *s"]], Float[Array, "b *t"]]  # images of what is denoised


def pictures(
    samples: Float[Array, "n *t"],
    x0: Float[Array, "b *s"],
    trajectory: Float[Array, "l n *s"],
    sigmas: np.ndarray,
    errors: tuple[Sequence[float], Float[Array, " m"]],
    *,
    key: PRNGKeyArray,
    side: int,
    seen: Seen,
    spread: float,
) -> Mapping[str, Picture]:
    """Show samples, x0 with more and more noise, the trajectory x at each of the levels `sigmas`, and the errors.

    `errors` are noise levels and the error at each; `spread` is the standard deviation of what is denoised.
    """
    places = _places(sigmas, spread)
    shown = sigmas[places].tolist()
    eps = jax.random.normal(key, x0.shape)
    forward = [_scaled(eps if np.isinf(s) else x0 + s * eps, s, spread) for s in shown[::-1]]
    reverse = [_scaled(trajectory[i], float(sigmas[i]), spread) for i in places]
    return {
        "samples": previews.grid(samples, side),
        "forward": strip(forward, shown[::-1], seen),
        "reverse": strip(reverse, shown, seen),
        "error": Curves(
            x=jnp.array(errors[0]),
            y=errors[1][None],
            labels=("test images",),
            axes=("noise / signal", "squared error"),
        ),
    }


def _places(sigmas: np.ndarray, spread: float) -> np.ndarray:
    """Up to SHOWN places in the sampling schedule, first and last among them, even to the eye."""
    share = 1 - 1 / (1 + sigmas / spread)  # of noise in what is shown: 1 at inf
    return np.unique([np.abs(share - wanted).argmin() for wanted in np.linspace(share[0], 0, SHOWN)])


def _scaled(x: Array, sigma: float, spread: float) -> Array:
    """Scale x = x0 + sigma·eps, or eps at inf, to the spread of x0 alone."""
    return x * spread if np.isinf(sigma) else x / np.float32(np.sqrt(1.0 + (sigma / spread) ** 2))


def strip(levels: Sequence[Float[Array, "b *s"]], sigmas: Sequence[float], seen: Seen) -> Panels:
    """Lay out the same few images, or all points, at each noise level, from left to right."""
    columns = tuple(f"σ = {sigma:.2g}" for sigma in sigmas)
    if levels[0].ndim == 2:
        return previews.on_plane(levels, columns)
    few = jnp.concatenate([x[:STRIPS] for x in levels])
    rows = jnp.clip(seen(few), -1.0, 1.0)
    return Panels(images=rows.reshape(len(levels), -1, *rows.shape[1:]).swapaxes(0, 1), columns=columns)
