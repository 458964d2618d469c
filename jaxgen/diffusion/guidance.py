"""Guidance: how two estimates of the picture, a better and a worse one, become one that is better still.

A guidance is a value; `guide` binds it to a net and to rows of labels, and samplers call the result like any denoiser.
Labels are weights over the classes and a last, null column, f32[b n+1], as the nets take them.

Scale 1 is the conditional denoiser itself in every guidance, bit for bit and at its cost. Outside the interval
low < sigma <= high the second evaluation is skipped (arXiv:2404.07724), inside it both run as one batch of 2b.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Key

from jaxgen.errors import UserError
from jaxgen.typing import Tree

Conditioned = Callable[[Float[Array, "b *s"], Float[Array, ""], Float[Array, "b n"] | None], Float[Array, "b *s"]]
"""(x, sigma, label weights) -> x0; an unconditional net is given None."""


@runtime_checkable
class Guidance(Protocol):
    """What to make of a net's estimates."""

    def check(self, *, conditional: bool, droppable: bool, weak: bool) -> None:
        """Raise UserError where the net lacks what this needs.

        `conditional`: it takes labels; `droppable`: it was trained with labels dropped; `weak`: there is a worse net.
        """
        ...

    def evaluations(self, sigma: float) -> int:
        """Return how many evaluations of a net one estimate at this level costs."""
        ...

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        """Return what is remembered before the first call, rows for the samples; () for nothing."""
        ...

    def step(
        self, net: "Guided", x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        """Return the guided estimate of x0 and what is remembered now."""
        ...


@struct.dataclass
class Guided:
    """A guided denoiser. Its leaves are rows, so that a sample can be taken out of its batch."""

    label: Any  # f32[b n+1], or None for a net without labels
    null: Any  # f32[b n+1], what stands for no label; None likewise
    keys: Any  # PRNGKey[b], one a sample, for guidance that draws
    guidance: Guidance = struct.field(pytree_node=False)
    strong: Conditioned = struct.field(pytree_node=False)
    weak: Conditioned | None = struct.field(pytree_node=False)

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return self.guidance.memory(x)

    def step(self, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree) -> tuple[Float[Array, "b *s"], Tree]:
        return self.guidance.step(self, x, sigma, memory)

    def with_label(self, x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> Float[Array, "b *s"]:
        """Return the net's own estimate for the labels."""
        return self.strong(x, sigma, self.label)

    def with_and_without(self, x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> tuple[Array, Array]:
        """Return the estimates for the labels and for null, of one call."""
        # Rows lie side by side, [x_0, x_0, x_1, x_1, ...]: a batch that is spread over devices stays where it is.
        labels = jnp.stack([self.label, self.null], 1).reshape(2 * len(x), -1)
        both = self.strong(jnp.repeat(x, 2, axis=0), sigma, labels).reshape(len(x), 2, *x.shape[1:])
        return both[:, 0], both[:, 1]


def guide(
    guidance: Guidance,
    net: Conditioned,
    label: Float[Array, "b n"] | None,
    keys: Key[Array, " b"],
    *,
    null: Float[Array, "b n"] | None = None,
    weak: Conditioned | None = None,
) -> Guided:
    """Bind guidance to a net and to what is asked of it; `null` is the last column alone unless it is given."""
    if label is not None and null is None:
        null = jnp.zeros_like(label).at[:, -1].set(1)
    return Guided(label=label, null=null, keys=keys, guidance=guidance, strong=net, weak=weak)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unguided:
    """The net's own estimate for the labels it is given, or without any."""

    def check(self, *, conditional: bool, droppable: bool, weak: bool) -> None:
        pass

    def evaluations(self, sigma: float) -> int:
        return 1

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return ()

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        return net.with_label(x, sigma), memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierFree:
    """Classifier-free guidance, null + scale (label - null) (arXiv:2207.12598; this scale is its 1 + w)."""

    scale: float = 2.0
    """1 for none."""
    low: float = 0.0
    """Level above which it acts (arXiv:2404.07724)."""
    high: float = math.inf
    """Last level at which it acts."""
    rescale: float = 0.0
    """Share of the guided estimate that gets the conditional one's spread back (arXiv:2305.08891, section 3.4)."""

    def __post_init__(self) -> None:
        _check_interval(self.low, self.high)
        if not 0 <= self.rescale <= 1:
            raise UserError(f"ClassifierFree.rescale is a share from 0 to 1; got {self.rescale}")

    def check(self, *, conditional: bool, droppable: bool, weak: bool) -> None:
        check_droppable("ClassifierFree", self.scale, conditional, droppable)

    def evaluations(self, sigma: float) -> int:
        return 2 if self.scale != 1 and _acts(self.low, self.high, np.float32(sigma)) else 1

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return ()

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        def guided() -> Float[Array, "b *s"]:
            label, null = net.with_and_without(x, sigma)
            found = null + self.scale * (label - null)
            if not self.rescale:
                return found
            # The paper rescales what the net predicts; of x0 the spread is the picture's own contrast.
            ratio = _spread(label) / jnp.maximum(_spread(found), 1e-12)
            return found * (self.rescale * ratio + (1 - self.rescale))

        if self.scale == 1:
            return net.with_label(x, sigma), memory
        return _inside(self.low, self.high, sigma, guided, lambda: net.with_label(x, sigma)), memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoguidance:
    """Guidance by a worse net for the same labels, weak + scale (strong - weak) (arXiv:2406.02507, equation 3)."""

    scale: float = 2.0
    """1 for none."""
    low: float = 0.0
    """Level above which it acts."""
    high: float = math.inf
    """Last level at which it acts."""

    def __post_init__(self) -> None:
        _check_interval(self.low, self.high)

    def check(self, *, conditional: bool, droppable: bool, weak: bool) -> None:
        if not weak:
            raise UserError("Autoguidance needs a worse net to be guided by, such as an earlier checkpoint: give one")

    def evaluations(self, sigma: float) -> int:
        return 2 if self.scale != 1 and _acts(self.low, self.high, np.float32(sigma)) else 1

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return ()

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        def guided() -> Float[Array, "b *s"]:
            if net.weak is None:
                raise UserError("Autoguidance needs a worse net to be guided by: give one")
            weak = net.weak(x, sigma, net.label)
            return weak + self.scale * (net.with_label(x, sigma) - weak)

        if self.scale == 1:
            return net.with_label(x, sigma), memory
        return _inside(self.low, self.high, sigma, guided, lambda: net.with_label(x, sigma)), memory


def _check_interval(low: float, high: float) -> None:
    if not 0 <= low < high:
        raise UserError(f"guidance acts at levels low < sigma <= high; got low = {low} and high = {high}")


def check_droppable(name: str, scale: float, conditional: bool, droppable: bool) -> None:
    """Raise UserError where a net cannot be asked for an estimate without labels."""
    if not conditional:
        raise UserError(f"{name} guides by labels, but this net takes none: use Unguided or Autoguidance")
    if not droppable and scale != 1:
        raise UserError(
            f"{name} needs a net trained with labels dropped, which this one was not: train one, or set scale=1"
        )


def _acts(low: float, high: float, sigma: Any) -> Any:
    return (sigma > np.float32(low)) & (sigma <= np.float32(high))


def _inside(
    low: float,
    high: float,
    sigma: Float[Array, ""],
    guided: Callable[[], Float[Array, "b *s"]],
    plain: Callable[[], Float[Array, "b *s"]],
) -> Float[Array, "b *s"]:
    """Return the guided estimate within the interval, and outside it the plain one, at its cost."""
    if low == 0 and math.isinf(high):
        return guided()
    acts: Bool[Array, ""] = _acts(low, high, sigma.astype(jnp.float32))
    return jax.lax.cond(acts, guided, plain)


def _spread(x: Float[Array, "b *s"]) -> Float[Array, "b *ones"]:
    return x.std(tuple(range(1, x.ndim)), keepdims=True)
