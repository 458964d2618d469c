"""What the objectives with one net share: making it, calling it in training and as a fixed function, updating it."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen import state as states
from jaxgen.errors import UserError
from jaxgen.objective import Scalars
from jaxgen.optim import gradients
from jaxgen.optim.gradients import Loss
from jaxgen.parallel.activations import over_groups
from jaxgen.parallel.mesh import check_batch
from jaxgen.state import Net, State
from jaxgen.typing import Batch, Spec, Tree


def blank(spec: Spec) -> Float[Array, "1 *s"]:
    """Return one empty image of the batch's shape, to make a net with."""
    return jnp.zeros((1, *spec["image"].shape[1:]))


def init(
    net: nn.Module, tx: optax.GradientTransformation, key: PRNGKeyArray, inputs: Sequence[Any], averages: Sequence[Any]
) -> State:
    """Make the first state of a net for inputs of these shapes."""
    weights = created(net.init(key, *inputs, train=False), tx, len(averages))
    return State(step=jnp.int32(0), nets={"net": weights}, extra={})


def created(variables: Mapping[str, Tree], tx: optax.GradientTransformation, averages: int) -> Net:
    """Make the Net of a module's first variables; the collections that are not trained become `stats`."""
    stats = {name: value for name, value in variables.items() if name not in ("params", "aux")}
    return states.create(variables["params"], stats, tx, averages)


def check_division(spec: Spec, turns: int) -> None:
    """Raise UserError unless the batch divides over devices, and over the turns in which they work it off."""
    images = spec["image"]
    if isinstance(images.sharding, NamedSharding) and isinstance(images.sharding.mesh, Mesh):
        check_batch(images.sharding.mesh, images.shape[0], turns)


def check_labels(name: str, own: int, spec: Spec, classes: tuple[str, ...]) -> None:
    """Raise UserError unless a net with `own` classes, the objective's field `name`, and the data agree on labels."""
    field = f"--objective.{name}.classes"
    if own and "label" not in spec:
        raise UserError(f"the {name} has {own} classes, but the data has no labels; set {field} 0")
    if "label" in spec and not own:
        raise UserError(
            f"the data has labels, but the {name} is unconditional: add Unlabelled() to the transforms of both "
            f"pipelines, or set {field} {len(classes)}"
        )
    if own not in (0, len(classes)):
        raise UserError(f"the {name} has {own} classes, but the data has {len(classes)}: {', '.join(classes[:4])}…")


def check(net: nn.Module, spec: Spec, classes: tuple[str, ...], microbatches: int, norm_groups: int) -> None:
    """Raise UserError unless the net has one output for each class, or a single one for two, and the batch divides."""
    check_division(spec, microbatches)
    rows = spec["image"].shape[0] // microbatches
    if norm_groups < 1 or rows % norm_groups:
        raise UserError(
            f"the {rows} rows of a batch do not divide into {norm_groups} groups; "
            f"set --objective.norm-groups to a divisor of {rows}"
        )
    image = jax.eval_shape(lambda: blank(spec))
    logits, _ = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x, train=False), image)
    if logits.shape[-1] != len(classes) and (logits.shape[-1], len(classes)) != (1, 2):
        raise UserError(
            f"the net has {logits.shape[-1]} outputs, but the data has {len(classes)} classes "
            f"({', '.join(classes[:4])}{', …' if len(classes) > 4 else ''}); set --objective.net.classes {len(classes)}"
        )


def step(
    state: State,
    batch: Batch,
    key: PRNGKeyArray,
    loss: Loss,
    txs: Mapping[str, optax.GradientTransformation],
    *,
    averages: Sequence[Any],
    microbatches: int,
) -> tuple[State, Scalars]:
    """Make one update and report the loss's scalars and the gradient's norm.

    The loss is a function of the params of every net of the state, by name, each of which has its optimizer in `txs`;
    the net named "net" alone has stats.
    """
    params = {name: net.params for name, net in state.nets.items()}
    stats = state.nets["net"].stats
    grads, stats, scalars = gradients.gradients(loss, params, stats, batch, key, microbatches)
    decays = [average.decay(state.step) for average in averages]
    nets = {
        name: states.update(net, txs[name], grads[name], stats=stats if name == "net" else {}, decays=decays)
        for name, net in state.nets.items()
    }
    scalars |= {"gradient_norm": optax.tree.norm(grads)}
    return State(step=state.step + 1, nets=nets, extra=state.extra), scalars


def train(net: nn.Module, params: Tree, stats: Tree, key: PRNGKeyArray, *inputs: Any) -> tuple[Any, list[Any], Tree]:
    """Return (output, auxiliary outputs, new stats) of a net in training.

    A net adds an auxiliary output by `self.sow("aux", name, value)`.
    """
    output, moved = net.apply(
        {"params": params, **stats},
        *inputs,
        train=True,
        rngs={"dropout": key, "mixing": jax.random.fold_in(key, 1)},
        mutable=[*stats, "aux"],
    )
    new_stats = {name: moved[name] for name in stats}
    return output, jax.tree.leaves(moved.get("aux", {})), new_stats


def train_in_groups(
    net: nn.Module, params: Tree, stats: Tree, key: PRNGKeyArray, image: Float[Array, "b *s"], groups: int
) -> tuple[Any, list[Any], Tree]:
    """Do what `train` does, with batch statistics of its own for each of so many equal parts of the batch.

    Ghost batch normalisation (arXiv:1705.08741); with as many groups as the batch has devices, statistics per device,
    which nothing is sent for. The running statistics are the groups' mean.
    """
    if groups == 1:
        return train(net, params, stats, key, image)
    parts = image.reshape(groups, -1, *image.shape[1:])
    call = functools.partial(train, net, params, stats)
    output, aux, moved = over_groups(call, groups, jax.random.split(key, groups), parts)
    joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (output, aux))
    return *joined, jax.tree.map(lambda x: x.mean(0), moved)


def infer(net: nn.Module, state: State, *inputs: Any) -> Any:
    """Return the output of a net as a fixed function, with its averaged weights where it keeps an average."""
    weights = state.nets["net"]
    return net.apply({"params": weights.best_params, **weights.stats}, *inputs, train=False)
