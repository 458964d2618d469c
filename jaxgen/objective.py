"""What an objective is: the one thing in which a classifier, an FCN, a GAN and a diffusion model differ.

`Objective` is all that training asks for. What else some objectives can do is a small Protocol of its own: `Predictive`
maps images, `Generative` makes samples, `Editable` changes pictures, `Density` knows likelihoods, `Preparable` has work
that is done once for all, `Diagnosing` warns. Nobody asks an objective for anything that is not named here.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
import tyro
from flax import struct
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.learner import Learner, Scalars
from jaxgen.metrics.accumulators import predicted
from jaxgen.pictures.panels import Picture
from jaxgen.state import State
from jaxgen.typing import Batch, Condition, Spec

TotalSteps = Annotated[int, tyro.conf.Suppress]  # set by the experiment, not on the command line
Metrics = dict[str, Any]  # sums of jaxgen.metrics.accumulators: merge by addition, divide once at the end


@runtime_checkable
class Objective(Protocol):
    """A frozen dataclass with pure methods."""

    total_steps: TotalSteps
    """The training's length, over which schedules run; the experiment sets it."""
    microbatches: int
    """Equal parts of the batch whose gradients are accumulated one after the other."""

    @property
    def learners(self) -> Mapping[str, Learner]:
        """The nets by name: those that learn, and those that are frozen."""
        ...

    @property
    def batch_parts(self) -> int:
        """Equal parts into which a step splits the batch before its microbatches; 1 for most."""
        ...

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


# --- what some objectives can do --------------------------------------------------------------------------------------


@struct.dataclass
class Classes:
    """A class for each image."""

    probability: Any  # f32[b n]


@struct.dataclass
class Mask:
    """A class for each pixel."""

    logits: Any  # f32[b h w n]; one logit x is the two logits (0, x)

    @property
    def ids(self) -> Any:
        """The likeliest class of each pixel, i32[b h w]."""
        return predicted(jnp.asarray(self.logits))


@struct.dataclass
class Image:
    """An image for each image."""

    pixels: Any  # f32[b h w c] in [-1, 1], of any size


Prediction = Classes | Mask | Image
Forward = Callable[[Any], Any]  # f32[b h w c] in [-1, 1] -> what `forward` returns


@runtime_checkable
class Predictive(Protocol):
    """An objective whose state maps images, prepared as the test images are, to something.

    A mask or an image that it returns is brought back to the picture's own size by whoever prepared the picture.
    """

    def any_size(self) -> bool:
        """Whether an image may have any size; otherwise, where no test transform prepares it, it is brought to the
        size that the net was trained at."""
        ...

    def forward(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b *s"]:
        """Return the net's answer to images in [-1, 1]; it is compiled once for each size."""
        ...

    def predict(self, forward: Forward, image: np.ndarray) -> Prediction:
        """Return what is found in images f32[b h w c] in [-1, 1], by calls of the compiled `forward`."""
        ...


@runtime_checkable
class Generative(Protocol):
    """An objective whose state makes new examples."""

    def conditions(self) -> tuple[str, ...]:
        """Return the names of the batch's arrays that a sample is made for, such as ("label",); () for none."""
        ...

    def check_sampling(self, *, guide: bool) -> None:
        """Raise UserError where the way samples are made does not fit the net; `guide`: a guiding model is there."""
        ...

    def with_options(self, options: Mapping[str, Any]) -> "Generative":
        """Return the objective with parts of its sampling replaced, such as {"solver": Dpm2M()}.

        Raises UserError for an option that it does not have.
        """
        ...

    def protocol(self) -> dict[str, Any]:
        """Say, ready for JSON, how samples are made: what must be known to compare a number measured on them."""
        ...

    def noise(self, keys: Key[Array, " b"], shape: tuple[int, ...]) -> Float[Array, "b *z"]:
        """Return the standard normal noise that the samples of these keys start from; an example has this shape."""
        ...

    def generate(
        self,
        state: State,
        noise: Float[Array, "b *z"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None = None,
    ) -> Float[Array, "b *s"]:
        """Make one sample from each row of noise: b functions of (state, noise, key, condition) and nothing else.

        `condition` holds the arrays that `conditions` names, as a batch does. `guide` is the state of the guiding
        model, where guidance asks for one. What is random in addition to the noise is drawn from the keys.
        """
        ...


@runtime_checkable
class Editable(Generative, Protocol):
    """A generative objective that also starts from images, f32[b *s] in [-1, 1]."""

    def edit(
        self,
        state: State,
        image: Float[Array, "b *s"],
        noise: Float[Array, "b *z"],
        keys: Key[Array, " b"],
        condition: Condition,
        guide: State | None = None,
        *,
        strength: float,
    ) -> Float[Array, "b *s"]:
        """Return what is made of each image: `strength` in 0..1 of noise is mixed with 1 - `strength` of the image.

        0 keeps the image, 1 forgets it. Other arguments are those of `generate`.
        """
        ...

    def invert(self, state: State, image: Float[Array, "b *s"], condition: Condition) -> Float[Array, "b *z"]:
        """Return the noise from which `generate`, without guidance, leads to each image for this condition."""
        ...


@runtime_checkable
class Density(Protocol):
    """An objective whose state gives examples a likelihood."""

    def log_likelihood(
        self,
        state: State,
        image: Float[Array, "b *s"],
        keys: Key[Array, " b"],
        condition: Condition,
        *,
        steps: int,
        sigma_min: float | None,
        sigma_max: float | None,
        probes: int,
    ) -> Float[Array, " b"]:
        """Return ln p of each image in nats; see `diffusion.likelihood`."""
        ...


@runtime_checkable
class Preparable(Protocol):
    """An objective whose frozen nets see each example as it is, so that they need see it only once."""

    def prepare(self, state: State, batch: Batch) -> dict[str, Array]:
        """Return what the frozen nets make of a batch, by the names under which a batch may hold it."""
        ...


@runtime_checkable
class Diagnosing(Protocol):
    """An objective that knows from its scalars when training goes wrong, while all of them are finite."""

    def diagnose(self, scalars: Mapping[str, float], progress: float) -> dict[str, str]:
        """Return what is wrong, by kind, and what to try; `progress` is the share of the training that has passed."""
        ...
