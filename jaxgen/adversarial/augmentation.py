"""Augmentation of what the discriminator sees, real and generated alike, and how often it is applied."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgen.adversarial.losses import Logits, per_row
from jaxgen.errors import UserError
from jaxgen.optim.schedules import Constant, Schedule
from jaxgen.typing import Tree


@runtime_checkable
class Probability(Protocol):
    """How often an augmentation is applied, over a training."""

    def init(self) -> Tree:
        """Return what it keeps from step to step: arrays, or {} where nothing adapts."""
        ...

    def at(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        """Return p in [0, 1] at this step of a training of `steps` steps."""
        ...

    def adapt(self, memory: Tree, real: Logits) -> Tree:
        """Return the memory after a step in which the discriminator gave augmented real images these logits."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed:
    """p by a schedule, such as CosineRamp(first=0.0, last=0.3, until=0.2) (R3GAN, arXiv:2501.05441, appendix D)."""

    p: Schedule = Constant(value=1.0)

    def init(self) -> Tree:
        return {}

    def at(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        del memory
        return jnp.clip(jnp.asarray(self.p.over(steps)(step), jnp.float32), 0.0, 1.0)

    def adapt(self, memory: Tree, real: Logits) -> Tree:
        del real
        return memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive:
    """p rises from 0 while the discriminator is too sure of real images, and falls while it is not.

    How sure it is is r_t = E[sign D(real)], 1 where all are taken for real, 0 where it guesses (arXiv:2006.06676,
    section 3.1).
    """

    target: float = 0.6
    """r_t at which p stays."""
    images: float = 500_000.0
    """Real images within which p can go from 0 to 1."""
    every: int = 4
    """Steps between two changes of p."""

    def init(self) -> Tree:
        return {"p": jnp.zeros(()), "sign": jnp.zeros(()), "seen": jnp.zeros((), jnp.int32)}

    def at(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        del step, steps
        return memory["p"]

    def adapt(self, memory: Tree, real: Logits) -> Tree:
        """Add these rows to those since the last change, and change p if it is time."""
        signs = per_row(jnp.sign(real).astype(jnp.float32))
        sign, seen = memory["sign"] + signs.sum(), memory["seen"] + len(real)
        moved = memory["p"] + jnp.sign(sign / seen - self.target) * seen / self.images
        due = seen >= self.every * len(real)
        return {
            "p": jnp.where(due, jnp.clip(moved, 0.0, 1.0), memory["p"]),
            "sign": jnp.where(due, 0.0, sign),
            "seen": jnp.where(due, 0, seen),
        }


# --- what is applied --------------------------------------------------------------------------------------------------


@runtime_checkable
class Augmentation(Protocol):
    """A random map of images through which gradients pass, applied with probability p."""

    @property
    def p(self) -> Probability:
        """How often it is applied."""
        ...

    def __call__(self, images: Float[Array, "b *s"], key: PRNGKeyArray, p: Float[Array, ""]) -> Float[Array, "b *s"]:
        """Map the images; each row has draws of its own."""
        ...

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError unless it can serve examples of this shape."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoAugmentation:
    """Images, or points, as they are."""

    @property
    def p(self) -> Probability:
        return Fixed(p=Constant(value=0.0))

    def __call__(self, images: Float[Array, "b *s"], key: PRNGKeyArray, p: Float[Array, ""]) -> Float[Array, "b *s"]:
        del key, p
        return images

    def check(self, shape: tuple[int, ...]) -> None:
        del shape


def check_images(augmentation: Augmentation, shape: tuple[int, ...]) -> None:
    """Raise UserError for points, where an augmentation is of images."""
    if len(shape) != 3:
        raise UserError(
            f"{type(augmentation).__name__} augments images, but an example has shape {shape}; use NoAugmentation()"
        )
