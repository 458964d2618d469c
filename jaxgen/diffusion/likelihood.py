"""The likelihood of data under a denoiser, by the change of variables along the probability-flow ODE."""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from jaxgen.diffusion.denoiser import Denoise
from jaxgen.diffusion.sampling_schedules import decreasing
from jaxgen.errors import UserError


def log_likelihood(
    denoise: Denoise,
    sigmas: np.ndarray,
    x0: Float[Array, "b *s"],
    keys: Key[Array, " b"],
    *,
    probes: int,
    mean: float | Float[Array, "b *s"] = 0.0,
    variance: float = 0.0,
) -> Float[Array, " b"]:
    """Return ln p(x0) in nats, p being the density of data plus noise of the last level of `sigmas`, which is above 0.

    Heun's method takes x0 up the schedule, which is finite, with d ln p / dsigma = -div (x - D) / sigma and an error of
    order 2 (arXiv:2011.13456, appendix D.2). At the first level the density is N(mean, sigma_max² + variance) on every
    axis, where `mean` and `variance` are the data's; leaving them out costs about mean / sigma_max and
    variance / (2 sigma_max²) on each axis.

    With `probes` = 0 the divergence is exact, at the cost of one derivative for each number of x0: for low dimensions.
    Otherwise it is Hutchinson's estimate from so many vectors of signs, the same ones for all steps: unbiased for each
    step, and so for the sum. Raises UserError for a schedule that reaches 0 or inf.
    """
    rising = decreasing(sigmas)[::-1]
    if rising[0] == 0 or math.isinf(rising[-1]):
        raise UserError("a likelihood needs finite levels above 0, such as those of Rho(to_zero=False)")
    x = x0.astype(jnp.promote_types(x0.dtype, jnp.float32))
    rates = _rates(denoise, _directions(x, keys, probes), 1 / max(probes, 1))

    def step(carry: tuple[Array, Array], levels: Array) -> tuple[tuple[Array, Array], None]:
        x, gained = carry
        now, then = levels
        slope, growth = rates(x, now)
        slope_then, growth_then = rates(x + (then - now) * slope, then)
        half = (then - now) / 2
        return (x + half * (slope + slope_then), gained + half * (growth + growth_then)), None

    pairs = jnp.asarray(list(itertools.pairwise(rising)), x.dtype)
    (x, gained), _ = jax.lax.scan(step, (x, jnp.zeros(len(x), x.dtype)), pairs)
    total = float(rising[-1]) ** 2 + variance
    offset = ((x - mean) ** 2).reshape(len(x), -1).sum(1) / total
    dims = math.prod(x.shape[1:])
    return gained - offset / 2 - dims / 2 * math.log(2 * math.pi * total)


def bits_per_dim(nats: Float[Array, " b"], dims: int, scale: float = 127.5) -> Float[Array, " b"]:
    """Turn ln p into bits for each of `dims` numbers: an upper bound of the code length of 8-bit pixels.

    It holds for pixels k + u, u uniform in [0, 1), written as (k + u) / scale - 1; a unit of [-1, 1] is 127.5
    steps of a byte, and so log2(127.5) = 8 - log2(256 / 127.5) bits are added (arXiv:1511.01844, section 3.1).
    """
    return -nats / (dims * math.log(2)) + math.log2(scale)


def _directions(x: Float[Array, "b *s"], keys: Key[Array, " b"], probes: int) -> Float[Array, "d b *s"]:
    """Make vectors v whose sum of v·Jv is the trace of J, or has `probes` times the trace as its mean."""
    shape = x.shape[1:]
    if probes == 0:
        axes = jnp.eye(math.prod(shape), dtype=x.dtype).reshape(-1, 1, *shape)
        return jnp.broadcast_to(axes, (len(axes), *x.shape))
    signs = jax.vmap(lambda key: jax.random.rademacher(key, (probes, *shape), x.dtype), out_axes=1)
    return signs(keys)


def _rates(
    denoise: Denoise, directions: Float[Array, "d b *s"], weight: float
) -> Callable[[Array, Array], tuple[Array, Array]]:
    """Return a function of x and sigma that gives dx/dsigma and its divergence f32[b]."""

    def rates(x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> tuple[Float[Array, "b *s"], Float[Array, " b"]]:
        def slope(x: Float[Array, "b *s"]) -> Float[Array, "b *s"]:
            return (x - denoise(x, sigma).astype(x.dtype)) / sigma

        # Samples do not depend on each other, so one derivative of the whole batch is enough for all.
        value, push = jax.linearize(slope, x)
        along = jax.lax.map(lambda v: (v * push(v)).reshape(len(x), -1).sum(1), directions)
        return value, weight * along.sum(0)

    return rates
