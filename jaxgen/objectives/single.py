"""What the objectives with one net share: making it, calling it in training and as a fixed function, updating it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen import optim
from jaxgen import state as states
from jaxgen.objective import Scalars
from jaxgen.optim import Loss
from jaxgen.parallel.mesh import check_batch
from jaxgen.state import State
from jaxgen.typing import Batch, Spec, Tree, UserError


def init(net: nn.Module, tx: optax.GradientTransformation, key: PRNGKeyArray, spec: Spec, *, ema: bool) -> State:
    """Make the first state of a net for images of the batch's shape; its non-trained collections become `stats`."""
    image = jnp.zeros((1, *spec["image"].shape[1:]))
    variables = net.init(key, image, train=False)
    stats = {name: value for name, value in variables.items() if name not in ("params", "aux")}
    weights = states.create(variables["params"], stats, tx, ema=ema)
    return State(step=jnp.int32(0), nets={"net": weights}, extra={})


def check(net: nn.Module, spec: Spec, classes: tuple[str, ...], microbatches: int) -> None:
    """Raise UserError unless the net has one output for each class, or a single one for two, and the batch divides."""
    images = spec["image"]
    if isinstance(images.sharding, NamedSharding) and isinstance(images.sharding.mesh, Mesh):
        check_batch(images.sharding.mesh, images.shape[0], microbatches)
    image = jax.ShapeDtypeStruct((1, *images.shape[1:]), jnp.float32)
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
    tx: optax.GradientTransformation,
    *,
    ema_decay: float,
    microbatches: int,
) -> tuple[State, Scalars]:
    """Make one update of the net and report the loss's scalars and the gradient's norm."""
    net = state.nets["net"]
    grads, stats, scalars = optim.gradients(loss, net.params, net.stats, batch, key, microbatches)
    net = states.update(net, tx, grads, stats=stats, ema_decay=states.warm_decay(ema_decay, state.step))
    scalars |= {"gradient_norm": optax.tree.norm(grads)}
    return State(step=state.step + 1, nets={"net": net}, extra=state.extra), scalars


def train(
    net: nn.Module, params: Tree, stats: Tree, image: Float[Array, "b h w c"], key: PRNGKeyArray
) -> tuple[Any, list[Any], Tree]:
    """Return (output, auxiliary outputs, new stats) of a net in training.

    A net adds an auxiliary output by `self.sow("aux", name, value)`.
    """
    output, moved = net.apply(
        {"params": params, **stats}, image, train=True, rngs={"dropout": key}, mutable=[*stats, "aux"]
    )
    new_stats = {name: moved[name] for name in stats}
    return output, jax.tree.leaves(moved.get("aux", {})), new_stats


def infer(net: nn.Module, state: State, image: Float[Array, "b h w c"]) -> Any:
    """Return the output of a net as a fixed function, with its averaged weights where it keeps an average."""
    weights = state.nets["net"]
    return net.apply({"params": weights.best_params, **weights.stats}, image, train=False)
