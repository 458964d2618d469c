"""What training carries from step to step: arrays only, no optimizer object and no apply function.

`update` is the only place in the house where an optimizer or an EMA acts.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jaxtyping import Array, Float

from jaxgen.typing import Tree


@struct.dataclass
class Net:
    """One network and all that travels with it."""

    params: Tree  # trained weights, f32
    stats: Tree  # non-trained collections such as batch statistics; {} where the network has none
    opt: Tree  # the optimizer's state
    ema: Any  # tuple[Tree, ...]: its EMAs, moving averages of params; () where none is kept

    @property
    def best_params(self) -> Tree:
        """The weights to evaluate with: the first EMA where one is kept, otherwise the trained ones."""
        return self.ema[0] if self.ema else self.params


@struct.dataclass
class State:
    """All of training at one moment: two equal States continue alike."""

    # Any: in the trees that JAX and Orbax make of a State, anything may stand for a leaf, or for an empty branch.
    step: Any  # i32[]: updates made so far
    nets: Any  # dict[str, Net]
    extra: Any  # dict[str, Tree]: what an objective carries besides its nets


def create(params: Tree, stats: Tree, tx: optax.GradientTransformation, emas: int = 0) -> Net:
    """Make a Net that has taken no step; each of its EMAs starts as a copy of the weights."""
    ema = tuple(jax.tree.map(jnp.copy, params) for _ in range(emas))
    return Net(params=params, stats=stats, opt=tx.init(params), ema=ema)


def update(
    net: Net,
    tx: optax.GradientTransformation,
    grads: Tree,
    *,
    stats: Tree,
    decays: Sequence[float | Float[Array, ""]] = (),
) -> Net:
    """Take one optimizer step and move each EMA: ema <- d·ema + (1 - d)·params."""
    updates, opt = tx.update(grads, net.opt, net.params)
    params = optax.apply_updates(net.params, updates)
    moved = [optax.incremental_update(params, ema, 1.0 - d) for ema, d in zip(net.ema, decays, strict=True)]
    return Net(params=params, stats=stats, opt=opt, ema=tuple(moved))
