"""Guidance: two estimates of the denoised image, a better and a worse one, become one that is better still.

A guidance is a value; `guide` binds it to a net and to the rows of a condition, and samplers call the result like any
denoiser. A condition's "label" is weights over the classes and a last, null column, f32[b n+1], as the nets take it.

Scale 1 is the conditional denoiser itself in every guidance, bit for bit and at its cost. Outside the interval
low < sigma <= high the second evaluation is skipped (arXiv:2404.07724), inside it both run as one batch of 2b.
"""

import abc
import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Key

from jaxgen.errors import UserError
from jaxgen.typing import Condition, Tree

Conditioned = Callable[[Float[Array, "b *s"], Float[Array, ""], Condition], Float[Array, "b *s"]]
"""(x, sigma, condition) -> x0; an unconditional net is given {}."""


@runtime_checkable
class Guidance(Protocol):
    """How the estimates of a net, and of a guiding model, are combined."""

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        """Raise UserError where the net lacks what this needs.

        `conditional`: it takes a condition; `droppable`: it was trained with the condition dropped at times; `guide`:
        there is a guiding model.
        """
        ...

    def evaluations(self, sigma: float) -> int:
        """Return how many evaluations of a net one estimate at this noise level costs."""
        ...

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        """Return what is remembered before the first call, rows for the samples; () for nothing."""
        ...

    def step(
        self, net: "Guided", x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        """Return the guided estimate of x0 and the new memory."""
        ...


@struct.dataclass
class Guided:
    """A guided denoiser. Its leaves are rows, so that a sample can be taken out of its batch."""

    condition: Any  # dict of arrays [b *c] by name; {} for an unconditional net
    null: Any  # what stands for no condition, by name: arrays of the same shapes
    keys: Any  # PRNGKey[b], one a sample, for guidance that draws
    guidance: Guidance = struct.field(pytree_node=False)
    net: Conditioned = struct.field(pytree_node=False)
    guide: Conditioned | None = struct.field(pytree_node=False)  # the guiding model

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return self.guidance.memory(x)

    def step(self, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree) -> tuple[Float[Array, "b *s"], Tree]:
        return self.guidance.step(self, x, sigma, memory)

    def conditional(self, x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> Float[Array, "b *s"]:
        """Return the net's own estimate for the condition."""
        return self.net(x, sigma, self.condition)

    def with_and_without(self, x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> tuple[Array, Array]:
        """Return the estimates for the condition and for null, of one call.

        Raises UserError where a part of the condition has no null.
        """
        if missing := sorted(self.condition.keys() - self.null.keys()):
            raise UserError(f"guidance needs to know what stands for no {', '.join(missing)}: give a null for it")

        # Rows lie next to each other, [x_0, x_0, x_1, x_1, ...]: a batch that is spread over devices stays where it is.
        def paired(a: Array, b: Array) -> Array:
            return jnp.stack([a, b], 1).reshape(2 * len(a), *a.shape[1:])

        condition = {name: paired(rows, self.null[name]) for name, rows in self.condition.items()}
        both = self.net(jnp.repeat(x, 2, axis=0), sigma, condition).reshape(len(x), 2, *x.shape[1:])
        return both[:, 0], both[:, 1]


def guide(
    guidance: Guidance,
    net: Conditioned,
    condition: Condition,
    keys: Key[Array, " b"],
    *,
    null: Condition | None = None,
    guide_net: Conditioned | None = None,
) -> Guided:
    """Bind guidance to a net, a condition and the guiding model, where there is one.

    `null` says what stands for no condition, by name. For "label" it is the null class, the last column alone, unless
    it is given; any other array has a null only where one is given. Raises UserError for a null without its condition.
    """
    nulls = dict(null or {})
    if unknown := sorted(nulls.keys() - condition.keys()):
        raise UserError(f"there is a null for {', '.join(unknown)}, but the condition has no such array: drop it")
    if "label" in condition and "label" not in nulls:
        nulls["label"] = jnp.zeros_like(condition["label"]).at[:, -1].set(1)
    return Guided(condition=dict(condition), null=nulls, keys=keys, guidance=guidance, net=net, guide=guide_net)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unguided:
    """The net's own estimate, with a condition or without one."""

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        pass

    def evaluations(self, sigma: float) -> int:
        return 1

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return ()

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        return net.conditional(x, sigma), memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Interval(abc.ABC):
    """Guidance of one scale that acts at the noise levels of an interval; outside it the net's own estimate stands."""

    scale: float = 2.0
    """1 for none."""
    low: float = 0.0
    """Noise level above which it acts (arXiv:2404.07724)."""
    high: float = math.inf
    """Last noise level at which it acts."""

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise UserError(
                f"guidance acts at noise levels low < sigma <= high; got low = {self.low} and high = {self.high}"
            )

    @abc.abstractmethod
    def inside(self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> Float[Array, "b *s"]:
        """Return the guided estimate of x0."""

    def evaluations(self, sigma: float) -> int:
        return 2 if self.scale != 1 and self._acts(np.float32(sigma)) else 1

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return ()

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        if self.scale == 1:
            return net.conditional(x, sigma), memory
        if self.low == 0 and math.isinf(self.high):
            return self.inside(net, x, sigma), memory
        estimate = jax.lax.cond(
            self._acts(sigma.astype(jnp.float32)),
            lambda: self.inside(net, x, sigma),
            lambda: net.conditional(x, sigma),
        )
        return estimate, memory

    def _acts(self, sigma: Any) -> Any:
        return (sigma > np.float32(self.low)) & (sigma <= np.float32(self.high))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierFree(_Interval):
    """Classifier-free guidance, null + scale (conditional - null) (arXiv:2207.12598; this scale is its 1 + w)."""

    rescale: float = 0.0
    """Share of the guided estimate that gets the conditional one's spread back (arXiv:2305.08891, section 3.4)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rescale <= 1:
            raise UserError(f"ClassifierFree.rescale is a share from 0 to 1; got {self.rescale}")

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        check_droppable("ClassifierFree", self.scale, conditional, droppable)

    def inside(self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> Float[Array, "b *s"]:
        conditional, null = net.with_and_without(x, sigma)
        guided = null + self.scale * (conditional - null)
        if not self.rescale:
            return guided
        # The paper rescales what the net predicts; of x0 the spread is the image's own contrast.
        ratio = _spread(conditional) / jnp.maximum(_spread(guided), 1e-12)
        return guided * (self.rescale * ratio + (1 - self.rescale))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoguidance(_Interval):
    """Guidance by a worse model for the same condition, guide + scale (net - guide) (arXiv:2406.02507, equation 3)."""

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        if not guide:
            raise UserError("Autoguidance needs a guiding model, a worse one such as an earlier checkpoint: give one")

    def inside(self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""]) -> Float[Array, "b *s"]:
        if net.guide is None:
            raise UserError("Autoguidance needs a guiding model: give one")
        worse = net.guide(x, sigma, net.condition)
        return worse + self.scale * (net.conditional(x, sigma) - worse)


def check_droppable(name: str, scale: float, conditional: bool, droppable: bool) -> None:
    """Raise UserError where a net cannot give an estimate without its condition."""
    if not conditional:
        raise UserError(f"{name} guides by a condition, but this net takes none: use Unguided or Autoguidance")
    if not droppable and scale != 1:
        raise UserError(
            f"{name} needs a net trained with labels dropped, which this one was not: train one, or set scale=1"
        )


def _spread(x: Float[Array, "b *s"]) -> Float[Array, "b *ones"]:
    return x.std(tuple(range(1, x.ndim)), keepdims=True)
