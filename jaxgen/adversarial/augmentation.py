"""Augmentation of what the discriminator sees, real and generated alike, and how often it is applied."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.optim.schedules import Constant, Schedule
from jaxgen.typing import Tree


@runtime_checkable
class Augmentation(Protocol):
    """A random map of pictures through which gradients pass, applied with probability p."""

    def init(self) -> Tree:
        """Make what it remembers from step to step: arrays, or {} where nothing adapts."""
        ...

    def probability(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        """Return p at this step, in [0, 1]."""
        ...

    def __call__(self, images: Float[Array, "b *s"], key: PRNGKeyArray, p: Float[Array, ""]) -> Float[Array, "b *s"]:
        """Map the images; each row has draws of its own."""
        ...

    def adapt(self, memory: Tree, real: Float[Array, " b"]) -> Tree:
        """Return the memory after a step in which the discriminator gave augmented real pictures these logits."""
        ...

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError unless it can serve examples of this shape."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoAugmentation:
    """Images, or points, as they are."""

    def init(self) -> Tree:
        return {}

    def probability(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        del memory, step, steps
        return jnp.zeros(())

    def __call__(self, images: Float[Array, "b *s"], key: PRNGKeyArray, p: Float[Array, ""]) -> Float[Array, "b *s"]:
        del key, p
        return images

    def adapt(self, memory: Tree, real: Float[Array, " b"]) -> Tree:
        del real
        return memory

    def check(self, shape: tuple[int, ...]) -> None:
        del shape


# --- how often --------------------------------------------------------------------------------------------------------


@runtime_checkable
class Probability(Protocol):
    """How often an augmentation is applied, over a training."""

    def init(self) -> Tree:
        """Make what it remembers from step to step: arrays, or {} where nothing adapts."""
        ...

    def at(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        """Return p at this step, in [0, 1]."""
        ...

    def adapt(self, memory: Tree, real: Float[Array, " b"]) -> Tree:
        """Return the memory after a step with these logits of real pictures."""
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

    def adapt(self, memory: Tree, real: Float[Array, " b"]) -> Tree:
        del real
        return memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adaptive:
    """p from 0 up while the discriminator is too sure of real pictures, and down while it is not.

    How sure it is is r_t = E[sign D(real)], 1 where all are taken for real, 0 where it guesses (arXiv:2006.06676,
    section 3.1).
    """

    target: float = 0.6
    """r_t at which p stays."""
    images: float = 500_000.0
    """Real pictures within which p can go from 0 to 1."""
    every: int = 4
    """Steps between two changes of p."""

    def init(self) -> Tree:
        return {"p": jnp.zeros(()), "sign": jnp.zeros(()), "seen": jnp.zeros((), jnp.int32)}

    def at(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        del step, steps
        return memory["p"]

    def adapt(self, memory: Tree, real: Float[Array, " b"]) -> Tree:
        """Add these rows to what was seen since the last change, and change p if it is time."""
        sign, seen = memory["sign"] + jnp.sign(real).astype(jnp.float32).sum(), memory["seen"] + len(real)
        moved = memory["p"] + jnp.sign(sign / seen - self.target) * seen / self.images
        due = seen >= self.every * len(real)
        return {
            "p": jnp.where(due, jnp.clip(moved, 0.0, 1.0), memory["p"]),
            "sign": jnp.where(due, 0.0, sign),
            "seen": jnp.where(due, 0, seen),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gated:
    """What augmentations share whose operations are each applied to each picture with probability p."""

    p: Probability = Fixed()

    def init(self) -> Tree:
        return self.p.init()

    def probability(self, memory: Tree, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
        return self.p.at(memory, step, steps)

    def adapt(self, memory: Tree, real: Float[Array, " b"]) -> Tree:
        return self.p.adapt(memory, real)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError for points."""
        if len(shape) != 3:
            raise UserError(
                f"{type(self).__name__} augments pictures, but an example has shape {shape}; use NoAugmentation()"
            )
