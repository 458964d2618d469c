"""Classification: an image in, one 1×N vector of logits out."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, blank, first_state, joint_step
from jaxgen.metrics.accumulators import Mean, class_logits, topk_correct
from jaxgen.nn.interfaces import Classifier, require
from jaxgen.objective import Classes, Forward, Metrics, TotalSteps
from jaxgen.objectives.checks import check_groups, check_outputs
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.supervised.losses import check_class_weights, classification_loss
from jaxgen.supervised.mixing import Mixing, NoMixing
from jaxgen.typing import Batch, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Softmax cross-entropy of a net that maps [b h w c] to [b n]; measured by top-1 and top-5 accuracy.

    A net with one output x has the logits (0, x) of two classes: the loss is then binary cross-entropy.
    """

    net: Learner
    mixing: Mixing = NoMixing()
    """What is done to a batch's images and labels together: NoMixing, Mixup or CutMix."""
    smoothing: float = 0.0
    """Share of the label spread evenly over all classes, at least 0 and below 1."""
    class_weights: tuple[float, ...] = ()
    """One weight for each class; () weighs all alike."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    norm_groups: int = 1
    """Equal parts of the batch that normalise by statistics of their own: 1 for the whole batch on all devices, as many
    as devices for each device's share."""
    total_steps: TotalSteps = 1

    def __post_init__(self) -> None:
        check_field(self, "smoothing", 0 <= self.smoothing < 1, "at least 0 and below 1")
        check_class_weights(self, self.class_weights)

    @property
    def learners(self) -> Mapping[str, Learner]:
        return {"net": self.net}

    @property
    def batch_parts(self) -> int:
        return 1

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError unless the batch has labels, and the net outputs and weights for each class."""
        if "label" not in spec:
            raise UserError(f"classification needs a label with each image; the data has {', '.join(spec)}")
        require(self.net.module, Classifier, "net")
        check_groups(spec, self.microbatches, self.norm_groups)
        check_outputs(self.net.module, spec, classes)
        rows = jnp.zeros((1, len(classes)))
        jax.eval_shape(lambda x: classification_loss(x, x, self.class_weights), rows)  # refuses weights that do not fit

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        return first_state({"net": self.net.init(key, blank(spec), total_steps=self.total_steps)})

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update."""

        def loss(params: Tree, stats: Tree, part: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_mix, k_net = jax.random.split(key)
            image, share = self.mixing.mix(k_mix, to_float(part["image"]))
            output, _, moved = self.net.train_in_groups(params["net"], stats["net"], k_net, image, self.norm_groups)
            logits = class_logits(output)
            label, whole = (jax.nn.one_hot(rows["label"], logits.shape[-1]) for rows in (part, batch))
            target = share * label + (1 - share) * label[::-1]  # mixed within the part: its classes weigh what they did
            value = classification_loss(logits, target, self.class_weights, self.smoothing, whole=whole).mean()
            return value, ({"net": moved}, {"accuracy": topk_correct(logits, part["label"], 1).mean()})

        return joint_step(
            self.learners, state, batch, key, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Sum top-1, top-5 and cross-entropy over the valid rows."""
        logits = self._logits(state, to_float(batch["image"]))
        target = jax.nn.one_hot(batch["label"], logits.shape[-1])
        valid = batch["valid"]
        return {
            "accuracy": Mean.of(topk_correct(logits, batch["label"], 1), valid),
            "top5": Mean.of(topk_correct(logits, batch["label"], 5), valid),
            "loss": Mean.of(optax.softmax_cross_entropy(logits, target), valid),
        }

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show images with the predicted class."""
        image = to_float(batch["image"])
        guess = self._logits(state, image).argmax(-1)
        return {
            "classes": Panels(images=grey_to_rgb(image)[None], titles=(), guess=guess[None], truth=batch["label"][None])
        }

    def any_size(self) -> bool:
        """Return False: a net may need the size that it was trained at."""
        return False

    def forward(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        """Return class probabilities of images in [-1, 1]."""
        return jax.nn.softmax(self._logits(state, image))

    def predict(self, forward: Forward, image: np.ndarray) -> Classes:
        """Return the class probabilities of images f32[b h w c] in [-1, 1]."""
        return Classes(probability=forward(image))

    def _logits(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        return class_logits(self.net.infer(state.nets["net"], image))
