"""Consistency functions: f(x, sigma) is where the probability-flow ODE that passes x at noise level sigma ends.

So f(x, 0) = x, and f is the same all along a path of the ODE. A net learns it from pairs of points with the same x0 and
eps at two near levels sigma > r: f(x_r, r), held fixed, is the target of f(x_sigma, sigma) (arXiv:2303.01469). Then one
evaluation makes a sample. Levels are the ratio of noise to signal, as for solvers.
"""

import dataclasses
import itertools
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxgen.diffusion.solvers import Call, Linear
from jaxgen.errors import UserError, check_field

Rows = Float[Array, " b"]

LEAST = 1e-6  # of a gap between two levels: beyond it what divides by the gap would overflow


@runtime_checkable
class Gaps(Protocol):
    """How far below its noise level a point's target lies."""

    def lower(self, sigma: Float[Array, " b"], progress: Float[Array, ""]) -> Float[Array, " b"]:
        """Return r, from 0 to sigma, of each level; `progress` is the share of the training that has passed."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Doubling:
    """r = sigma (1 - (1 + k sigmoid(-b sigma)) / q^stage), at least 0: each stage doubles the steps down a path.

    The first stages give the clean image as the target of nearly all levels, which is a denoiser's, and the last ones
    points so near that f follows the ODE (ECT, arXiv:2406.14548, section 3.3 and appendix A).
    """

    q: float = 2.0
    """By how much the gaps shrink from stage to stage; 256 with one stage is the paper's short recipe."""
    stages: int = 8
    """Equal parts of the training, the first of which has gaps of about sigma / q."""
    k: float = 8.0
    """How much wider gaps are, relative to sigma, at the least noise."""
    b: float = 1.0

    def __post_init__(self) -> None:
        check_field(self, "q", self.q > 1, "above 1")
        check_field(self, "stages", self.stages >= 1, "at least 1")
        check_field(self, "k", self.k >= 0, "0 or more")

    def lower(self, sigma: Rows, progress: Float[Array, ""]) -> Rows:
        stage = jnp.minimum(jnp.floor(progress * self.stages), self.stages - 1) + 1
        share = (1 + self.k * jax.nn.sigmoid(-self.b * sigma)) * self.q**-stage
        return sigma * jnp.maximum(1 - share, 0.0)


def distance(a: Float[Array, "b *s"], b: Float[Array, "b *s"], flat: float) -> Float[Array, " b"]:
    """Return the length of each row of a - b, made quadratic below `flat`: sqrt(‖a - b‖² + flat²) - flat.

    That is the pseudo-Huber loss (arXiv:2310.14189). Its gradient is finite also where a and b are equal, as that of
    the length itself is not.
    """
    squares = jnp.square(a - b).sum(tuple(range(1, a.ndim)))
    return squares / (jnp.sqrt(squares + flat**2) + flat)


def per_gap(loss: Float[Array, " b"], sigma: Float[Array, " b"], r: Float[Array, " b"]) -> Float[Array, " b"]:
    """Divide each row's loss by the gap between its levels, so that the sum along a path is of one size at any gap."""
    return loss / jnp.maximum(sigma - r, LEAST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Multistep(Linear):
    """Alternately jump to the end of the path, and back by fresh noise (arXiv:2303.01469, algorithm 1).

    It is for consistency functions, and knows no ODE: more steps do not bring a denoiser's samples nearer to the data.
    """

    @property
    def order(self) -> int:
        return 0

    def calls(self, sigmas: np.ndarray) -> list[Call]:
        if sigmas[-1] != 0:
            raise UserError(f"Multistep jumps to noise level 0, where its schedule must end; this ends at {sigmas[-1]}")
        _, x0 = np.eye(2)
        return [Call(level=now, slots=(x0,), after=then) for now, then in itertools.pairwise(sigmas)]
