"""What an objective is: the one thing in which a classifier, an FCN, a GAN and a diffusion model differ."""

from typing import Annotated, Any, Protocol, runtime_checkable

import tyro
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.state import State
from jaxgen.typing import Batch, Spec

Horizon = Annotated[int, tyro.conf.Suppress]  # an objective's `steps`: the experiment sets it, not the command line
Scalars = dict[str, Float[Array, ""]]  # what one step has to say, over the global batch
Metrics = dict[str, Any]  # sums from jaxgen.metrics: merge by addition, divide once at the end


@struct.dataclass
class Panels:
    """Pictures for a person: n rows of m pictures, in [-1, 1]."""

    images: Any  # f32[n m h w c]
    titles: tuple[str, ...] = struct.field(pytree_node=False)  # one for each of the n rows; () for none
    guess: Any = None  # i32[n m]: class ids to write beneath, -1 for none
    truth: Any = None  # i32[n m]: what the guess should have been


@runtime_checkable
class Objective(Protocol):
    """Pure methods over a frozen dataclass with a field `steps: Horizon`, the training's length for its schedules.

    The field is not declared here: a Protocol with data members cannot tell its implementations from other classes,
    by which the command line finds an objective's own fields.
    """

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError where the data and the objective do not fit each other."""
        ...

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state from the batch's shapes alone; works under jax.eval_shape."""
        ...

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update and report scalars over the global batch, among them "loss"."""
        ...

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Return mergeable sums over the rows that batch["valid"] marks."""
        ...

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Return what a person looks at."""
        ...
