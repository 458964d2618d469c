"""Terms of a discriminator's loss that regularise the discriminator D.

Those made of gradients take the gradient of D's logits themselves, not of a sigmoid or a loss of them, with respect to
the images before they are augmented. Where no layer of D mixes examples, the gradient of the sum of all logits holds in
each row that row's own gradient: one backward pass serves the batch. Where one does, it holds something else.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgen.adversarial.losses import Logits, per_row
from jaxgen.errors import UserError
from jaxgen.optim.schedules import Constant, Schedule, lowest
from jaxgen.typing import Tree

Rows = Float[Array, " b"]
Images = Float[Array, "b *s"]  # images f32[b h w c], or points f32[b d]
Discriminator = Callable[[Images], Logits]  # D after the augmentation of its images
# As D sees the real images, and the fakes: each kind has its own draws of augmentation.
Discriminators = tuple[Discriminator, Discriminator]

# The root has an infinite derivative at 0, which times 0 is NaN. This number inside it keeps the derivative finite, and
# is below float32's resolution of the square of any length above 0.01 (compare_gan, arXiv:1807.04720, has 1e-4 there,
# which moves the minimum).
TINY = 1e-12


@runtime_checkable
class Penalty(Protocol):
    """A number for each row, a weight for their mean, and what the penalty keeps from step to step."""

    def init(self) -> Tree:
        """Return the memory before the first step, {} where there is none."""
        return {}

    def rows(self, discriminators: Discriminators, real: Images, fake: Images, memory: Tree, key: PRNGKeyArray) -> Rows:
        """Return the penalty of each row, without its weight."""
        ...

    def remember(self, memory: Tree, real: Logits, fake: Logits) -> Tree:
        """Return the memory after a step in which D gave these logits."""
        del real, fake
        return memory

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        """Return what the mean of the rows is multiplied by at a step of a training of `steps` steps."""
        ...

    def check(self, shape: tuple[int, ...], rows: int, steps: int) -> None:
        """Raise UserError for examples of this shape, a number of rows or of steps, that it cannot serve."""

    def period(self) -> int:
        """Return n for a penalty that joins each n-th step only, with n times its weight; 1 for each step."""
        return 1

    def needs_per_example_gradients(self) -> bool:
        """Whether it is meant for a D in which no layer mixes examples."""
        return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ZeroCentred(Penalty):
    """What R1 and R2 share: gamma / 2 times a squared gradient norm."""

    gamma: Schedule | None = None
    """The strength, before it is halved; it has to be given. What is right grows with the number of pixels and falls
    with the batch: StyleGAN2-ADA's code guesses 0.0002 · side² / batch (arXiv:2006.06676), and R3GAN takes more."""
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
        _check_period(self, self.every)

    def check(self, shape: tuple[int, ...], rows: int, steps: int) -> None:
        """Raise UserError for a negative gamma, and where none is given, with a guess."""
        name = type(self).__name__
        if self.gamma is None:
            guess = 0.0002 * math.prod(shape[:2]) / rows if len(shape) == 3 else 1.0
            raise UserError(
                f"{name} has no gamma; for {'×'.join(map(str, shape))} and {rows} rows try "
                f"gamma=Constant(value={guess:.2g}), and ten times as much if training is not stable"
            )
        _check_strength(f"{name}.gamma", self.gamma, steps)

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        assert self.gamma is not None  # `check` refuses it
        return _at(self.gamma, step, steps) / 2

    def period(self) -> int:
        return self.every

    def needs_per_example_gradients(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class R1(_ZeroCentred):
    """gamma / 2 times D's squared gradient norm at real images (arXiv:1801.04406, equation 9).

    The square is summed over all of an image's numbers. Raises UserError for `every` below 1.
    """

    def rows(self, discriminators: Discriminators, real: Images, fake: Images, memory: Tree, key: PRNGKeyArray) -> Rows:
        del fake, memory, key
        return squared_gradient_norm(discriminators[0], real)


@dataclasses.dataclass(frozen=True, kw_only=True)
class R2(_ZeroCentred):
    """gamma / 2 times D's squared gradient norm at fake images (arXiv:1801.04406, equation 10).

    R3GAN needs it in addition to R1: with a relativistic loss and R1 alone, the gradient at fakes explodes
    (arXiv:2501.05441, section 2). Raises UserError for `every` below 1.
    """

    def rows(self, discriminators: Discriminators, real: Images, fake: Images, memory: Tree, key: PRNGKeyArray) -> Rows:
        del real, memory, key
        return squared_gradient_norm(discriminators[1], fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientPenalty(Penalty):
    """strength times (D's gradient norm - target)² between real and fake images (WGAN-GP, arXiv:1704.00028, eq. 3).

    Each row's image lies at a uniform place on the line from its fake to its real one; the norm is over all of an
    image's numbers. Raises UserError for a negative target, or `every` below 1.
    """

    strength: Schedule = Constant(value=10.0)
    target: float = 1.0
    """The gradient norm that is wanted; 0 for a D that is flat between the data and the samples (arXiv:1902.03984)."""
    every: int = 1
    """Steps from one penalty to the next; each gets `every` times the weight, as in R1."""

    def __post_init__(self) -> None:
        _check_period(self, self.every)
        if self.target < 0:
            raise UserError(f"GradientPenalty.target is a norm, 0 or more; got {self.target}")

    def rows(self, discriminators: Discriminators, real: Images, fake: Images, memory: Tree, key: PRNGKeyArray) -> Rows:
        del memory
        share = jax.random.uniform(key, (len(real), *(1,) * (real.ndim - 1)))
        norm = jnp.sqrt(squared_gradient_norm(discriminators[0], fake + share * (real - fake)) + TINY)
        return jnp.square(norm - self.target)

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        return _at(self.strength, step, steps)

    def check(self, shape: tuple[int, ...], rows: int, steps: int) -> None:
        """Raise UserError for a negative strength."""
        del shape, rows
        _check_strength("GradientPenalty.strength", self.strength, steps)

    def period(self) -> int:
        return self.every

    def needs_per_example_gradients(self) -> bool:
        return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeCam(Penalty):
    """Holds D's logits of real images to the average that fakes had, and the reverse (arXiv:2104.03310).

    strength · (relu(D(x) - fakes' average)² + relu(reals' average - D(G(z)))²), as in the authors' code; for little
    data. The averages are of the steps before, their start from 0 divided out as in Adam; the first step has none, and
    its rows are 0. Raises UserError for a negative start, and unless 0 ≤ decay < 1.
    """

    strength: Schedule
    """0.3 for BigGAN on CIFAR, 3e-7 for StyleGAN2 on FFHQ (the authors' settings)."""
    decay: float = 0.99
    """How much of the averages remains after a step."""
    start: int = 0
    """Steps before it acts; the averages run from the first."""

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UserError(f"LeCam.decay is a share from 0 up to, not including, 1; got {self.decay}")
        if self.start < 0:
            raise UserError(f"LeCam.start is a number of steps, 0 or more; got {self.start}")

    def init(self) -> Tree:
        return {"real": jnp.float32(0.0), "fake": jnp.float32(0.0), "mass": jnp.float32(0.0)}

    def rows(self, discriminators: Discriminators, real: Images, fake: Images, memory: Tree, key: PRNGKeyArray) -> Rows:
        del key
        known = memory["mass"] > 0
        mass = jnp.where(known, memory["mass"], 1.0)
        above = jax.nn.relu(discriminators[0](real) - memory["fake"] / mass)
        below = jax.nn.relu(memory["real"] / mass - discriminators[1](fake))
        return per_row(jnp.where(known, jnp.square(above) + jnp.square(below), 0.0))

    def remember(self, memory: Tree, real: Logits, fake: Logits) -> Tree:
        seen = {"real": real.mean(), "fake": fake.mean(), "mass": jnp.float32(1.0)}
        return jax.tree.map(lambda old, new: self.decay * old + (1 - self.decay) * new, memory, seen)

    def weight(self, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        return jnp.where(step < self.start, 0.0, _at(self.strength, step, steps))

    def check(self, shape: tuple[int, ...], rows: int, steps: int) -> None:
        """Raise UserError for a negative strength."""
        del shape, rows
        _check_strength("LeCam.strength", self.strength, steps)


def squared_gradient_norm(discriminator: Discriminator, images: Images) -> Rows:
    """Return the squared norm of each row's gradient, over all its numbers, for a discriminator that mixes no examples.

    It is the gradient of the sum of a row's logits, where there is one for each patch.
    """
    gradient = jax.grad(lambda x: discriminator(x).sum())(images)
    return jnp.square(gradient.astype(jnp.float32)).sum(tuple(range(1, images.ndim)))


def _at(schedule: Schedule, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
    return jnp.asarray(schedule.over(steps)(step), jnp.float32)


def _check_period(penalty: Penalty, every: int) -> None:
    if every < 1:
        raise UserError(f"{type(penalty).__name__}.every is a number of steps, at least 1; got {every}")


def _check_strength(name: str, strength: Schedule, steps: int) -> None:
    """Raise UserError for a strength that is negative at some of nine steps of the training."""
    least = lowest(strength, steps)
    if least < 0:
        raise UserError(f"{name} is 0 or more throughout: less would reward what it is to prevent; got {least:.3g}")
