"""What training carries from step to step: arrays only, no optimizer object and no apply function.

`update` is the only place in the house where an optimizer or an EMA acts.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from jaxgen.typing import Tree


@struct.dataclass
class Net:
    """One network and all that travels with it."""

    params: Tree  # trained weights, f32
    stats: Tree  # non-trained collections such as batch statistics; {} where the network has none
    opt: Tree  # the optimizer's state
    ema: Tree  # exponential moving average of params; None where it is not kept

    @property
    def best_params(self) -> Tree:
        """The weights to evaluate with: the average where one is kept, otherwise the trained ones."""
        return self.params if self.ema is None else self.ema


@struct.dataclass
class State:
    """All of training at one moment: two equal States continue alike."""

    # Any: in the trees that JAX and Orbax make of a State, anything may stand for a leaf, or for an empty branch.
    step: Any  # i32[]: updates made so far
    nets: Any  # dict[str, Net]
    extra: Any  # dict[str, Tree]: what an objective carries beside its nets


def create(params: Tree, stats: Tree, tx: optax.GradientTransformation, *, ema: bool) -> Net:
    """Make a Net that has taken no step; with `ema` its average starts as a copy of the weights."""
    return Net(params=params, stats=stats, opt=tx.init(params), ema=jax.tree.map(jnp.copy, params) if ema else None)


def update(
    net: Net,
    tx: optax.GradientTransformation,
    grads: Tree,
    *,
    stats: Tree,
    ema_decay: float | Float[Array, ""] = 0.0,
) -> Net:
    """Take one optimizer step and move the average: ema <- d·ema + (1 - d)·params."""
    updates, opt = tx.update(grads, net.opt, net.params)
    params = optax.apply_updates(net.params, updates)
    ema = None if net.ema is None else optax.incremental_update(params, net.ema, 1.0 - ema_decay)
    return Net(params=params, stats=stats, opt=opt, ema=ema)


def warm_decay(decay: float, step: Int[Array, ""]) -> Float[Array, ""]:
    """Let an average's decay rise as (1 + t) / (10 + t) to its final value, to forget the first weights soon.

    As in tf.train.ExponentialMovingAverage with num_updates.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))
