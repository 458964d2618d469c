"""What an objective is: the one thing in which a classifier, an FCN, a GAN and a diffusion model differ."""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

import tyro
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgen.noise import Towards
from jaxgen.pictures.panels import Picture
from jaxgen.state import State
from jaxgen.typing import Batch, Spec

Horizon = Annotated[int, tyro.conf.Suppress]  # an objective's `steps`: the experiment sets it, not the command line
Scalars = dict[str, Float[Array, ""]]  # what one step has to say, over the global batch
Metrics = dict[str, Any]  # sums from jaxgen.metrics: merge by addition, divide once at the end


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

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> Mapping[str, Picture]:
        """Return what a person looks at."""
        ...


@runtime_checkable
class Watched(Protocol):
    """An objective that knows from its scalars when training goes wrong without being infinite."""

    def warnings(self, values: Mapping[str, float], share: float) -> dict[str, str]:
        """Return what is wrong, by kind, and what to try; `share` of the training has passed."""
        ...


@runtime_checkable
class Generative(Protocol):
    """An objective whose state can be asked for new examples."""

    def conditional(self) -> bool:
        """Whether each sample is of a class that is asked for."""
        ...

    def check_sampling(self, *, weak: bool) -> None:
        """Raise UserError where the way samples are made does not fit the net; `weak`: a worse model is there."""
        ...

    def protocol(self) -> dict[str, Any]:
        """Say, ready for JSON, how samples are made: what must be known to compare a number measured on them."""
        ...

    def generate(
        self,
        state: State,
        shape: tuple[int, ...],
        keys: Key[Array, " b"],
        label: Int[Array, " b"] | None,
        weak: State | None,
        towards: Towards | None = None,
    ) -> Float[Array, "b *s"]:
        """Make one sample of the given shape from each key: b functions of (state, key, label) and nothing else.

        `weak` is the state of a worse model of the same data, where guidance asks for one. With `towards`, the noise
        that each sample is made of lies on the arc to that of another.
        """
        ...
