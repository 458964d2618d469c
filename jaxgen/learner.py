"""A learner is one net and how it learns: its module, its optimizer, its EMA and the weights that it starts from.

A learner without an optimizer is frozen: it has no gradient and no optimizer state, and its batch statistics stand
still. An objective has learners by name, and a State has a Net for each.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgen.errors import check_field
from jaxgen.optim.gradients import gradients
from jaxgen.optim.optimizer import Optimizer
from jaxgen.parallel.activations import over_groups
from jaxgen.state import Net, State, create, update
from jaxgen.typing import Spec, Tree

Scalars = dict[str, Float[Array, ""]]  # what one step reports, over the global batch
# (params, stats, batch, key) -> loss, (new stats, scalars); params and stats by the learners' names
JointLoss = Callable[
    [dict[str, Tree], dict[str, Tree], Tree, PRNGKeyArray], tuple[Array, tuple[dict[str, Tree], Scalars]]
]


@runtime_checkable
class Weights(Protocol):
    """Weights from elsewhere, which replace a net's random ones once, before the first step."""

    def read(self, variables: Tree) -> Tree:
        """Return arrays on the host for variables of these shapes, {"params": …, "batch_stats": …}.

        Raises UserError where the weights are not there or do not fit.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """One net and how it learns."""

    module: nn.Module
    optimizer: Optimizer | None = None
    """How its parameters learn; None: the net is frozen."""
    ema: tuple[Any, ...] = ()
    """Moving averages of the parameters to keep, of `Ema`; evaluation and samples use the first, () keeps none."""
    weights: Any = None
    """The weights that it starts from, of `Weights`; None: random ones."""

    def __post_init__(self) -> None:
        dropout = getattr(self.module, "dropout", 0.0)
        if isinstance(dropout, int | float):
            check_field(self.module, "dropout", 0 <= dropout < 1, "at least 0 and below 1")

    def init(self, key: PRNGKeyArray, *inputs: Any, total_steps: int) -> Net:
        """Make the Net for inputs of these shapes; collections that are not trained become `stats`.

        Raises UserError where the optimizer does not fit the net or the training's length.
        """
        variables = self.module.init(key, *inputs, train=False)
        stats = {name: value for name, value in variables.items() if name not in ("params", "aux")}
        params = variables.get("params", {})
        if self.optimizer is None:
            return Net(params=params, stats=stats, opt={}, ema=())
        self.optimizer.check(total_steps)
        return create(params, stats, self.optimizer.transform(total_steps), len(self.ema))

    def train(self, params: Tree, stats: Tree, key: PRNGKeyArray, *inputs: Any) -> tuple[Any, list[Any], Tree]:
        """Return (output, auxiliary outputs, new stats) of the net in training; of a frozen one, as a fixed function.

        A net adds an auxiliary output by `self.sow("aux", name, value)`.
        """
        if self.optimizer is None:
            return self.module.apply({"params": params, **stats}, *inputs, train=False), [], stats
        output, moved = self.module.apply(
            {"params": params, **stats},
            *inputs,
            train=True,
            rngs={"dropout": key, "mixing": jax.random.fold_in(key, 1)},
            mutable=[*stats, "aux"],
        )
        new_stats = {name: moved[name] for name in stats}
        return output, jax.tree.leaves(moved.get("aux", {})), new_stats

    def train_in_groups(
        self, params: Tree, stats: Tree, key: PRNGKeyArray, image: Float[Array, "b *s"], groups: int
    ) -> tuple[Any, list[Any], Tree]:
        """Do what `train` does, with separate batch statistics for each of so many equal parts of the batch.

        Ghost batch normalisation (arXiv:1705.08741); with as many groups as the batch has devices, statistics are per
        device, and nothing is sent for them. The running statistics are the groups' mean.
        """
        if groups == 1:
            return self.train(params, stats, key, image)
        parts = image.reshape(groups, -1, *image.shape[1:])
        call = functools.partial(self.train, params, stats)
        output, aux, moved = over_groups(call, groups, jax.random.split(key, groups), parts)
        joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (output, aux))
        return *joined, jax.tree.map(lambda x: x.mean(0), moved)

    def infer(self, net: Net, *inputs: Any) -> Any:
        """Return the net's output as a fixed function, with its first EMA where it keeps one."""
        return self.module.apply({"params": net.best_params, **net.stats}, *inputs, train=False)

    def update(self, net: Net, grads: Tree, stats: Tree, step: Int[Array, ""], *, total_steps: int) -> Net:
        """Take one optimizer step and move the EMA; a frozen net stays as it is."""
        if self.optimizer is None:
            return net
        decays = [ema.decay_at(step) for ema in self.ema]
        return update(net, self.optimizer.transform(total_steps), grads, stats=stats, decays=decays)


def blank(spec: Spec) -> Float[Array, "1 *s"]:
    """Return one empty image of the batch's shape, to make a net with."""
    return jnp.zeros((1, *spec["image"].shape[1:]))


def first_state(nets: Mapping[str, Net], extra: Tree = None) -> State:
    """Return the State before the first step."""
    return State(step=jnp.int32(0), nets=dict(nets), extra={} if extra is None else extra)


def joint_step(
    learners: Mapping[str, Learner],
    state: State,
    batch: Tree,
    key: PRNGKeyArray,
    loss: JointLoss,
    *,
    total_steps: int,
    microbatches: int = 1,
) -> tuple[State, Scalars]:
    """Make one update of all learners by one loss, and report its scalars and the gradient's norm.

    The loss is a function of the params and stats of every net by name; only the params of learners that have an
    optimizer are differentiated.
    """
    nets = state.nets
    frozen = {name: nets[name].params for name, learner in learners.items() if learner.optimizer is None}
    params = {name: nets[name].params for name in learners if name not in frozen}
    stats = {name: nets[name].stats for name in learners}

    def of_learning(params: Tree, stats: Tree, batch: Tree, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
        return loss({**params, **frozen}, stats, batch, key)

    grads, stats, scalars = gradients(of_learning, params, stats, batch, key, microbatches)
    moved = {
        name: learner.update(nets[name], grads.get(name), stats[name], state.step, total_steps=total_steps)
        for name, learner in learners.items()
    }
    scalars |= {"gradient_norm": optax.tree.norm(grads)}
    return State(step=state.step + 1, nets=moved, extra=state.extra), scalars
