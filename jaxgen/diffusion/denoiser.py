"""The interface between nets and samplers: a net of any prediction type, trained on any path, becomes a denoiser."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.diffusion.path import Path
from jaxgen.diffusion.predictions import Prediction
from jaxgen.diffusion.quantities import rows

Denoise = Callable[[Float[Array, " b *s"], Float[Array, ""]], Float[Array, " b *s"]]
"""(x, sigma) -> x0, where x = x0 + sigma eps; at sigma = inf x is eps itself."""

Net = Callable[[Float[Array, " b *s"], Float[Array, " b"]], Float[Array, " b *s"]]
"""(z, noise) -> output, as `Prediction` says."""


NetWithMore = Callable[[Float[Array, " b *s"], Float[Array, " b"]], tuple[Float[Array, " b *s"], Any]]
"""The same, with something else that it returns: new statistics, in training."""


def denoiser(net: Net, path: Path, prediction: Prediction) -> Denoise:
    """Make a denoiser of a net, bound to its weights, that was trained on `path` to give `prediction`.

    Its sigma is the ratio sigma / alpha of the path, inf at pure noise. Raises UserError where path and prediction do
    not go together.
    """
    prediction.check(path)

    def with_nothing(z: Float[Array, " b *s"], noise: Float[Array, " b"]) -> tuple[Float[Array, " b *s"], None]:
        return net(z, noise), None

    def denoise(x: Float[Array, " b *s"], sigma: Float[Array, ""]) -> Float[Array, " b *s"]:
        return denoised(with_nothing, path, prediction, x, sigma)[0]

    return denoise


def denoised(
    net: NetWithMore, path: Path, prediction: Prediction, x: Float[Array, " b *s"], sigma: Float[Array, "*l"]
) -> tuple[Float[Array, " b *s"], Any]:
    """Return x0, as a denoiser does, and what else the net returned; sigma is f32[], or f32[b] for each row its own."""
    t = path.time(sigma)
    # Time is rounded, and near an end the smaller of alpha and sigma follows from it only roughly: it is taken
    # from the larger one and the ratio, so that z has the right ratio to a float's precision.
    alpha, noise = path.alpha(t), path.sigma(t)
    little, much = jnp.where(sigma > 1, 1, sigma), jnp.where(sigma > 1, sigma, 1)
    alpha, noise = jnp.where(sigma > 1, noise / much, alpha), jnp.where(sigma > 1, noise, alpha * little)
    z = rows(jnp.where(jnp.isinf(sigma), noise, alpha), x) * x
    level = jnp.broadcast_to(prediction.noise(alpha, noise, t), x.shape[:1])
    output, more = net(rows(prediction.scale(alpha, noise), z) * z, level)
    return prediction.denoised(output, z, alpha, noise), more


def output_error(
    net: NetWithMore, path: Path, prediction: Prediction, x0: Float[Array, " b *s"], eps: Array, t: Float[Array, " b"]
) -> tuple[Float[Array, " b"], Any]:
    """Return each row's mean squared error of the output of a net in training, and what else the net returned."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    z = rows(alpha, x0) * x0 + rows(sigma, x0) * eps
    scale = prediction.scale(alpha, sigma)
    output, more = net(rows(scale, z) * z, prediction.noise(alpha, sigma, t))
    wrong = output.astype(jnp.float32) - prediction.target(x0, eps, alpha, sigma)
    return jnp.square(wrong).mean(tuple(range(1, wrong.ndim))), more
