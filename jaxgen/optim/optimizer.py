"""Optimizers and schedules as values: an experiment names them, `transform` turns them into optax."""

import dataclasses
import re
from typing import Protocol, runtime_checkable

import optax

from jaxgen import tree
from jaxgen.optim.schedules import CosineRamp, Schedule
from jaxgen.optim.transforms import force_weight_norm, scale_by_path
from jaxgen.typing import Tree


@runtime_checkable
class UpdateRule(Protocol):
    """How a gradient becomes a direction; `decay` is the weight decay, to be placed where the rule wants it."""

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    """Stochastic gradient descent with momentum; weight decay joins the gradient, as an L2 term does."""

    momentum: float = 0.9
    nesterov: bool = False

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        del steps
        return optax.chain(decay, optax.trace(self.momentum, self.nesterov))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    """Adam (arXiv:1412.6980); weight decay is decoupled, as in AdamW (arXiv:1711.05101)."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
        del steps
        return optax.chain(optax.scale_by_adam(self.b1, self.b2, self.eps), decay)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RampedAdam:
    """Adam whose second moment reaches further back as training settles (R3GAN, arXiv:2501.05441, appendix D)."""

    b1: float = 0.0
    b2: Schedule = CosineRamp(first=0.9, last=0.99, until=0.1)
    eps: float = 1e-8

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

    def transform(self, steps: int) -> optax.GradientTransformation:
        """Build the optax chain for a training of `steps` steps.

        Raises UserError at init if an expression in `lr_multipliers` or `forced_weight_norm` finds no parameter.
        """
        parts = [] if self.clip is None else [optax.clip_by_global_norm(self.clip)]
        if self.weight_decay:

            def mask(params: Tree) -> Tree:
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
