"""Optimizers and schedules as values: an experiment names them, `transform` turns them into optax."""

import dataclasses
import math
import re
from typing import Protocol, runtime_checkable

import optax

from jaxgen import tree
from jaxgen.errors import UserError, check_field
from jaxgen.optim.schedules import CosineRamp, Schedule, check_schedule, lowest
from jaxgen.optim.transforms import check_found, force_weight_norm, scale_by_path
from jaxgen.typing import Tree

SHARE = "at least 0 and below 1"


@runtime_checkable
class UpdateRule(Protocol):
    """How a gradient becomes a direction; `decay` is the weight decay, to be placed where the rule wants it."""

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent with momentum; weight decay joins the gradient, as an L2 term does."""

    momentum: float = 0.9
    """At least 0 and below 1."""
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_field(self, "momentum", 0 <= self.momentum < 1, SHARE)

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        del steps
        return optax.chain(decay, optax.trace(self.momentum, self.nesterov))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (arXiv:1412.6980); weight decay is decoupled, as in AdamW (arXiv:1711.05101)."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_field(self, "b1", 0 <= self.b1 < 1, SHARE)
        check_field(self, "b2", 0 <= self.b2 < 1, SHARE)
        check_field(self, "eps", 0 <= self.eps < math.inf, "0 or more")

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        del steps
        return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps), decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RAdam(Adam):
    """Adam that steps by momentum alone until its second moment has seen enough (rectified Adam, arXiv:1908.03265).

    It needs no warm-up of the learning rate.
    """

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        del steps
        return optax.chain(optax.scale_by_radam(self.b1, self.b2, self.eps), decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RampedAdam:
    """Adam whose second moment reaches further back as training settles (R3GAN, arXiv:2501.05441, appendix D)."""

    b1: float = 0.0
    b2: Schedule = CosineRamp(first=0.9, last=0.99, until=0.1)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_field(self, "b1", 0 <= self.b1 < 1, SHARE)
        check_schedule(self, "b2", self.b2)
        check_field(self, "eps", 0 <= self.eps < math.inf, "0 or more")

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        scale = optax.inject_hyperparams(optax.scale_by_adam, static_args=("b1", "eps"))
        return optax.chain(scale(b1=self.b1, b2=self.b2.over(steps), eps=self.eps), decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An update rule, its learning rate, and what happens to the gradient on the way."""

    learning_rate: Schedule
    method: UpdateRule = Adam()
    clip: float | None = None
    """Largest global norm of the gradient; None leaves it alone."""
    weight_decay: float = 0.0
    weight_decay_mask: str = r"kernel$"
    """Regular expression: weight decay acts on the parameters whose path it finds."""
    forced_weight_norm: str = ""
    """Regular expression: after each step, each output of the kernels whose path it finds is scaled to unit mean
    square (forced weight normalisation, EDM2); empty finds none."""
    lr_multipliers: tuple[tuple[str, float], ...] = ()
    """(regular expression, factor) pairs: the first that finds a path scales that parameter's learning rate."""

    def __post_init__(self) -> None:
        check_schedule(self, "learning_rate", self.learning_rate)
        clipped = self.clip is None or self.clip > 0
        check_field(self, "clip", clipped, "above 0, or None, which leaves the gradient alone")
        check_field(self, "weight_decay", 0 <= self.weight_decay < math.inf, "0 or more")
        factors = [factor for _, factor in self.lr_multipliers]
        positive = all(0 <= factor < math.inf for factor in factors)
        check_field(self, "lr_multipliers", positive, "pairs of an expression and a factor of 0 or more")
        for pattern in (self.weight_decay_mask, self.forced_weight_norm, *(p for p, _ in self.lr_multipliers)):
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(f"Optimizer: {pattern!r} is no regular expression: {error}") from error

    def check(self, steps: int) -> None:
        """Raise UserError for a learning rate that is negative somewhere in a training of so many steps."""
        if not (least := lowest(self.learning_rate, steps)) >= 0:
            raise UserError(
                f"Optimizer.learning_rate must be 0 or more throughout; {self.learning_rate} has {least:.3g}"
            )

    def transform(self, steps: int) -> optax.GradientTransformation:
        """Build the optax chain for a training of `steps` steps.

        Raises UserError at init if an expression in `weight_decay_mask` (where there is weight decay),
        `lr_multipliers` or `forced_weight_norm` finds no parameter.
        """
        parts = [] if self.clip is None else [optax.clip_by_global_norm(self.clip)]
        if self.weight_decay:

            def mask(params: Tree) -> Tree:
                check_found("weight_decay_mask", self.weight_decay_mask, params)
                return tree.map_with_path(lambda path, _: bool(re.search(self.weight_decay_mask, path)), params)

            decay = optax.add_decayed_weights(self.weight_decay, mask)
        else:
            decay = optax.identity()
        parts.append(self.method.direction(decay, steps))
        if self.lr_multipliers:
            parts.append(scale_by_path(self.lr_multipliers))
        parts.append(optax.scale_by_learning_rate(self.learning_rate.over(steps)))
        if self.forced_weight_norm:
            parts.append(force_weight_norm(self.forced_weight_norm))
        return optax.chain(*parts)
