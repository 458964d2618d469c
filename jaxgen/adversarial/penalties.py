"""Terms that keep a discriminator D tame, added to its loss.

Those made of D's slope take it from D's outputs themselves, not from a sigmoid or a loss of them, and with respect to
the pictures before they are augmented. Where no layer of D mixes examples, the gradient of the sum of all outputs
holds in each row that row's own gradient: one backward pass serves the batch. Where one does, it holds something else.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.optim.schedules import Constant, Schedule
from jaxgen.typing import Tree

Rows = Float[Array, " b"]
Pictures = Float[Array, "b *s"]  # pictures f32[b h w c], or points f32[b d]
Discriminate = Callable[[Float[Array, "b *s"]], Float[Array, " b"]]  # D, and whatever augments its pictures
Discriminates = tuple[
    Discriminate, Discriminate
]  # as it sees the real ones, and the fakes: each kind has its own draws of augmentation

# A root has an infinite slope at 0, which times 0 is NaN. This number inside it keeps the slope finite, and is below
# float32's resolution of the square of any length above 0.01 (compare_gan, arXiv:1807.04720, puts 1e-4 there, which
# moves the minimum).
TINY = 1e-12


@runtime_checkable
class Penalty(Protocol):
    """A number for each row, a weight for their mean, and what the penalty remembers from step to step."""

    def init(self) -> Tree:
        """Return the memory before the first step, {} where there is none."""
        ...

    def rows(self, critics: Discriminates, real: Pictures, fake: Pictures, memory: Tree, key: PRNGKeyArray) -> Rows:
        """Return the penalty of each row, without its weight."""
        ...

    def remember(self, memory: Tree, real: Rows, fake: Rows) -> Tree:
        """Return the memory after a step in which D gave these logits."""
        ...

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        """Return what the mean of the rows is multiplied by at a step of a training of `steps` steps."""
        ...

    def check(self, shape: tuple[int, ...], rows: int) -> None:
        """Raise UserError for examples of this shape, or a number of rows, that it cannot serve."""
        ...

    def period(self) -> int:
        """Return n for a penalty that joins each n-th step only, with n times its weight; 1 for each step."""
        ...

    def mixes_nothing(self) -> bool:
        """Whether it is meant for a D in which no layer mixes examples."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfSlopes:
    """What penalties on D's slope have in common: no memory, and a period."""

    every: int = 1
    """Steps from one penalty to the next; each gets `every` times the weight (lazy regularisation, StyleGAN2,
    arXiv:1912.04958, appendix B).

    StyleGAN2 also changes Adam: its rate, and the exponents of its betas, times every / (every + 1). There the penalty
    is an optimizer step of its own, so that r iterations make r + 1 steps of Adam. Here it joins the gradient of that
    iteration's one step: there are as many steps as without it, and Adam must stay as it is.

    Above 1 it is cheaper, but no proof of convergence covers it. R3GAN (arXiv:2501.05441) rejects it: it fails on small
    data such as Stacked MNIST and points in the plane.
    """

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"{type(self).__name__}.every is a number of steps, at least 1; got {self.every}")

    def init(self) -> Tree:
        return {}

    def remember(self, memory: Tree, real: Rows, fake: Rows) -> Tree:
        del real, fake
        return memory

    def check(self, shape: tuple[int, ...], rows: int) -> None:
        del shape, rows

    def period(self) -> int:
        return self.every

    def mixes_nothing(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OfGamma(_OfSlopes):
    """What R1 and R2 have in common: gamma / 2 times a squared slope."""

    gamma: Schedule | None = None
    """The strength, before it is halved; it has to be given. What is right grows with the number of pixels and falls
    with the batch: StyleGAN2-ADA's code guesses 0.0002 · side² / batch (arXiv:2006.06676), and R3GAN takes more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma is not None:
            _check(f"{type(self).__name__}.gamma", self.gamma)

    def check(self, shape: tuple[int, ...], rows: int) -> None:
        """Raise UserError where no gamma is given, with a guess."""
        if self.gamma is None:
            guess = 0.0002 * math.prod(shape[:2]) / rows if len(shape) == 3 else 1.0
            raise UserError(
                f"{type(self).__name__} has no gamma; for {'×'.join(map(str, shape))} and {rows} rows try "
                f"gamma=Constant(rate={guess:.2g}), and ten times as much if training is not stable"
            )

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        assert self.gamma is not None  # as `check` has seen
        return _at(self.gamma, step, steps) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1(_OfGamma):
    """gamma / 2 times D's squared slope at real pictures (arXiv:1801.04406, equation 9).

    The square is summed over all of a picture's numbers. Raises UserError for a negative gamma, or `every` below 1.
    """

    def rows(self, critics: Discriminates, real: Pictures, fake: Pictures, memory: Tree, key: PRNGKeyArray) -> Rows:
        del fake, memory, key
        return squared_gradient_norm(critics[0], real)


@dataclasses.dataclass(frozen=True, kw_only=True)
class R2(_OfGamma):
    """gamma / 2 times D's squared slope at fake pictures (arXiv:1801.04406, equation 10).

    R3GAN needs it beside R1: with a relativistic loss and R1 alone, the slope at fakes explodes (arXiv:2501.05441,
    section 2). Raises UserError for a negative gamma, or `every` below 1.
    """

    def rows(self, critics: Discriminates, real: Pictures, fake: Pictures, memory: Tree, key: PRNGKeyArray) -> Rows:
        del real, memory, key
        return squared_gradient_norm(critics[1], fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientPenalty(_OfSlopes):
    """strength times (D's slope - target)² between real and fake pictures (WGAN-GP, arXiv:1704.00028, equation 3).

    Each row's picture lies at a uniform place on the line from its fake to its real one; the slope is the norm over all
    of a picture's numbers. Raises UserError for a negative strength or target, or `every` below 1.
    """

    strength: Schedule = Constant(value=10.0)
    target: float = 1.0
    """The slope that is wanted; 0 for a D that is flat between the data and the samples (arXiv:1902.03984)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("GradientPenalty.strength", self.strength)
        if self.target < 0:
            raise UserError(f"GradientPenalty.target is a slope, 0 or more; got {self.target}")

    def rows(self, critics: Discriminates, real: Pictures, fake: Pictures, memory: Tree, key: PRNGKeyArray) -> Rows:
        del memory
        share = jax.random.uniform(key, (len(real), *(1,) * (real.ndim - 1)))
        slope = jnp.sqrt(squared_gradient_norm(critics[0], fake + share * (real - fake)) + TINY)
        return jnp.square(slope - self.target)

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        return _at(self.strength, step, steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeCam:
    """Holds D's outputs for real pictures down to those it used to give fakes, and the reverse (arXiv:2104.03310).

    strength · (relu(D(x) - fakes' average)² + relu(reals' average - D(G(z)))²), as in the authors' code; for little
    data. The averages are of the steps before, their start from 0 divided out as in Adam; the first step has none, and
    its rows are 0. Raises UserError for a negative strength or start, and unless 0 ≤ decay < 1.
    """

    strength: Schedule
    """0.3 for BigGAN on CIFAR, 3e-7 for StyleGAN2 on FFHQ (the authors' settings)."""
    decay: float = 0.99
    """How much of the averages outlives a step."""
    start: int = 0
    """Steps before it acts; the averages run from the first."""

    def __post_init__(self) -> None:
        _check("LeCam.strength", self.strength)
        if not 0 <= self.decay < 1:
            raise UserError(f"LeCam.decay is a share from 0 up to, not including, 1; got {self.decay}")
        if self.start < 0:
            raise UserError(f"LeCam.start is a number of steps, 0 or more; got {self.start}")

    def init(self) -> Tree:
        return {"real": jnp.float32(0.0), "fake": jnp.float32(0.0), "mass": jnp.float32(0.0)}

    def rows(self, critics: Discriminates, real: Pictures, fake: Pictures, memory: Tree, key: PRNGKeyArray) -> Rows:
        del key
        known = memory["mass"] > 0
        mass = jnp.where(known, memory["mass"], 1.0)
        above = jax.nn.relu(critics[0](real) - memory["fake"] / mass)
        below = jax.nn.relu(memory["real"] / mass - critics[1](fake))
        return jnp.where(known, jnp.square(above) + jnp.square(below), 0.0)

    def remember(self, memory: Tree, real: Rows, fake: Rows) -> Tree:
        seen = {"real": real.mean(), "fake": fake.mean(), "mass": jnp.float32(1.0)}
        return jax.tree.map(lambda old, new: self.decay * old + (1 - self.decay) * new, memory, seen)

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        return jnp.where(step < self.start, 0.0, _at(self.strength, step, steps))

    def check(self, shape: tuple[int, ...], rows: int) -> None:
        del shape, rows

    def period(self) -> int:
        return 1

    def mixes_nothing(self) -> bool:
        return False


def squared_gradient_norm(critic: Discriminate, images: Pictures) -> Rows:
    """Return the squared norm of each row's gradient, over all of its numbers, for a critic that mixes no examples."""
    slope = jax.grad(lambda x: critic(x).sum())(images)
    return jnp.square(slope.astype(jnp.float32)).sum(tuple(range(1, images.ndim)))


def _at(schedule: Schedule, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
    return jnp.asarray(schedule.over(steps)(step), jnp.float32)


def _check(name: str, strength: Schedule) -> None:
    """Raise UserError for a strength that is known to be negative somewhere."""
    # What jaxgen's schedules call their values; a schedule of one's own may have none of these fields.
    lowest = min(getattr(strength, field, 0.0) for field in ("rate", "first", "last"))
    if lowest < 0:
        raise UserError(f"{name} is 0 or more throughout: less would reward what it is to prevent; got {lowest}")
