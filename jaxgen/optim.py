"""Optimizers and schedules as values: an experiment names them, `transform` turns them into optax."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen import tree
from jaxgen.typing import Batch, Tree, UserError


@runtime_checkable
class Schedule(Protocol):
    """A learning rate, or another strength, over a training of `steps` steps."""

    def over(self, steps: int) -> optax.Schedule: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
    """The same rate throughout."""

    rate: float

    def over(self, steps: int) -> optax.Schedule:
        return optax.constant_schedule(self.rate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up to `rate`, then half a cosine down to `rate * floor` (SGDR, arXiv:1608.03983, one cycle)."""

    rate: float
    warmup: float = 0.05
    """Share of the training spent rising from 0."""
    floor: float = 0.0

    def over(self, steps: int) -> optax.Schedule:
        rise = round(self.warmup * steps)
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if rise else self.rate,
            peak_value=self.rate,
            warmup_steps=rise,
            decay_steps=max(steps, rise + 1),
            end_value=self.rate * self.floor,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poly:
    """Rate falling as (1 - t/T)^power, the schedule of segmentation (DeepLab, arXiv:1606.00915, section 4.1)."""

    rate: float
    power: float = 0.9
    warmup: float = 0.0
    """Share of the training spent rising linearly from 0."""
    floor: float = 0.0

    def over(self, steps: int) -> optax.Schedule:
        rise = round(self.warmup * steps)
        fall = optax.polynomial_schedule(self.rate, self.rate * self.floor, self.power, max(steps - rise, 1))
        if not rise:
            return fall
        return optax.join_schedules([optax.linear_schedule(0.0, self.rate, rise), fall], [rise])


@dataclasses.dataclass(frozen=True, kw_only=True)
class InverseSqrt:
    """Linear warm-up, `rate` until step `hold`, then rate * sqrt(hold / step) (EDM2, arXiv:2312.02696, section 3)."""

    rate: float
    hold: int
    """Steps before the rate falls."""
    warmup: int = 0
    """Steps spent rising from 0."""

    def over(self, steps: int) -> optax.Schedule:
        def rate(step: Any) -> Array:
            rise = jnp.minimum(1.0, step / self.warmup) if self.warmup else jnp.float32(1.0)
            return self.rate * rise / jnp.sqrt(jnp.maximum(step / self.hold, 1.0))

        return rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class CosineRamp:
    """Half a cosine from `first` to `last`, then `last`: the burn-in of R3GAN (arXiv:2501.05441, appendix D)."""

    first: float
    last: float
    until: float = 1.0
    """Share of the training at which `last` is reached."""

    def over(self, steps: int) -> optax.Schedule:
        end = max(self.until * steps, 1.0)

        def rate(step: Any) -> Array:
            done = jnp.minimum(step / end, 1.0)
            return self.last + (self.first - self.last) * (0.5 + 0.5 * jnp.cos(jnp.pi * done))

        return rate


@runtime_checkable
class Method(Protocol):
    """How a gradient becomes a direction; `decay` is the weight decay to place where the method wants it."""

    def direction(self, decay: optax.GradientTransformation, steps: int) -> optax.GradientTransformation: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Momentum:
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
    """A method, its learning rate, and what happens to the gradient on the way."""

    rate: Schedule
    method: Method = Adam()
    clip: float | None = None
    """Largest global norm of the gradient; None leaves it alone."""
    weight_decay: float = 0.0
    decay: str = r"kernel$"
    """Regular expression: weight decay acts on the parameters whose path it finds."""
    unit: str = ""
    """Regular expression: after each step, each output of the kernels whose path it finds is scaled to unit mean
    square (forced weight normalisation, EDM2); empty finds none."""
    multipliers: tuple[tuple[str, float], ...] = ()
    """(regular expression, factor) pairs: the first that finds a path scales that parameter's rate; 0 freezes it."""

    def transform(self, steps: int) -> optax.GradientTransformation:
        """Build the optax chain for a training of `steps` steps.

        Raises UserError at init if an expression in `multipliers` finds no parameter.
        """
        parts = [] if self.clip is None else [optax.clip_by_global_norm(self.clip)]
        if self.weight_decay:
            mask = lambda params: tree.map_with_path(lambda path, _: bool(re.search(self.decay, path)), params)  # noqa: E731
            decay = optax.add_decayed_weights(self.weight_decay, mask)
        else:
            decay = optax.identity()
        parts.append(self.method.direction(decay, steps))
        if self.multipliers:
            parts.append(_scale_by_path(self.multipliers))
        parts.append(optax.scale_by_learning_rate(self.rate.over(steps)))
        if self.unit:
            parts.append(_to_unit(self.unit))
        return optax.chain(*parts)


def unit(kernel: Float[Array, "*in out"]) -> Float[Array, "*in out"]:
    """Scale what each output sums up with to a mean square of 1 (EDM2, arXiv:2312.02696, algorithm 1)."""
    square = jnp.square(kernel.astype(jnp.float32)).mean(tuple(range(kernel.ndim - 1)), keepdims=True)
    # Far below float32's resolution beside anything but zero, where it keeps the root's gradient finite.
    return (kernel / (1e-4 + jnp.sqrt(square + 1e-30))).astype(kernel.dtype)


def _to_unit(pattern: str) -> optax.GradientTransformation:
    """Replace a step p + u of the kernels found by one that ends at unit(p + u)."""

    def init(params: Tree) -> optax.EmptyState:
        paths = [path for path, _ in tree.leaves(params)]
        if not any(re.search(pattern, path) for path in paths):
            raise UserError(f"optimizer.unit: {pattern!r} finds no parameter; there are {', '.join(paths[:8])} …")
        return optax.EmptyState()

    def project(updates: Tree, state: optax.EmptyState, params: Tree | None = None) -> tuple[Tree, optax.EmptyState]:
        def one(path: str, u: Array, p: Array) -> Array:
            return unit(p + u) - p if re.search(pattern, path) else u

        paths = tree.map_with_path(lambda path, _: path, updates)
        return jax.tree.map(one, paths, updates, params), state

    return optax.GradientTransformation(init, project)  # pyrefly: ignore[bad-argument-type]


def _scale_by_path(multipliers: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    def factor(path: str) -> float:
        return next((f for pattern, f in multipliers if re.search(pattern, path)), 1.0)

    def init(params: Tree) -> optax.EmptyState:
        paths = [path for path, _ in tree.leaves(params)]
        for pattern, _ in multipliers:
            if not any(re.search(pattern, path) for path in paths):
                there = ", ".join(paths[:8])
                raise UserError(f"optimizer.multipliers: {pattern!r} finds no parameter; there are {there} …")
        return optax.EmptyState()

    def scale(updates: Tree, state: optax.EmptyState, params: Tree | None = None) -> tuple[Tree, optax.EmptyState]:
        del params
        return tree.map_with_path(lambda path, u: u * factor(path), updates), state

    return optax.GradientTransformation(init, scale)  # pyrefly: ignore[bad-argument-type]


def dealt(batch: Batch, parts: int) -> Batch:
    """Divide the rows of a batch into equal parts, along a new first axis.

    Part j holds rows j, j + parts, …, so that each part lies on all devices.
    """
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1), batch)


# (params, stats, batch, key) -> loss, (new stats, scalars to log)
Loss = Callable[[Tree, Tree, Batch, PRNGKeyArray], tuple[Array, tuple[Tree, dict[str, Array]]]]


def gradients(
    loss: Loss, params: Tree, stats: Tree, batch: Batch, key: PRNGKeyArray, microbatches: int = 1
) -> tuple[Tree, Tree, dict[str, Array]]:
    """Return (gradient of the loss, new stats, scalars), averaged over `microbatches` equal parts of the batch.

    With more than one part (gradient accumulation) only one part's activations live at a time; batch statistics
    pass from part to part.
    """
    differentiate = jax.value_and_grad(loss, has_aux=True)
    if microbatches == 1:
        (value, (stats, scalars)), grads = differentiate(params, stats, batch, key)
        return grads, stats, {"loss": value, **scalars}

    def one(carry: tuple[Tree, Tree], xs: Any) -> tuple[tuple[Tree, Tree], dict[str, Array]]:
        total, stats = carry
        part, k = xs
        (value, (stats, scalars)), grads = differentiate(params, stats, part, k)
        return (jax.tree.map(jnp.add, total, grads), stats), {"loss": value, **scalars}

    zeros = jax.tree.map(jnp.zeros_like, params)
    xs = dealt(batch, microbatches), jax.random.split(key, microbatches)
    (total, stats), scalars = jax.lax.scan(one, (zeros, stats), xs)
    return jax.tree.map(lambda g: g / microbatches, total), stats, jax.tree.map(lambda s: s.mean(0), scalars)
