"""Classification: an image in, one 1×N vector of logits out."""

import dataclasses
from collections.abc import Mapping

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.learner import Learner, Scalars, blank, first_state, joint_step
from jaxgen.metrics.accumulators import Mean, topk_correct
from jaxgen.nn.interfaces import Classifier, require
from jaxgen.objective import Classes, Forward, Metrics, TotalSteps
from jaxgen.objectives.checks import check_groups, check_outputs
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.supervised.losses import classification_loss
from jaxgen.supervised.mixing import Mixing, NoMixing
from jaxgen.typing import Batch, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Softmax cross-entropy of a net that maps [b h w c] to [b n]; measured by top-1 and top-5 accuracy."""

    net: Learner
    mixing: Mixing = NoMixing()
    """What is done to a batch's images and labels together: NoMixing, Mixup or CutMix."""
    smoothing: float = 0.0
    """Share of the label spread evenly over all classes."""
    class_weights: tuple[float, ...] = ()
    """One weight for each class; () weighs all alike."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    norm_groups: int = 1
    """Equal parts of the batch that normalise by statistics of their own: 1 for the whole batch on all devices, as many
    as devices for each device's share."""
    total_steps: TotalSteps = 1

    @property
    def learners(self) -> Mapping[str, Learner]:
        return {"net": self.net}

    @property
    def batch_parts(self) -> int:
        return 1

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError unless the batch has labels and the net one output for each class."""
        if "label" not in spec:
            raise UserError(f"classification needs a label with each image; the data has {', '.join(spec)}")
        require(self.net.module, Classifier, "net")
        check_groups(spec, self.microbatches, self.norm_groups)
        check_outputs(self.net.module, spec, classes)

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        return first_state({"net": self.net.init(key, blank(spec), total_steps=self.total_steps)})

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update."""

        def loss(params: Tree, stats: Tree, batch: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_mix, k_net = jax.random.split(key)
            image, share = self.mixing.mix(k_mix, to_float(batch["image"]))
            logits, _, moved = self.net.train_in_groups(params["net"], stats["net"], k_net, image, self.norm_groups)
            label = jax.nn.one_hot(batch["label"], logits.shape[-1])
            target = share * label + (1 - share) * label[::-1]
            value = classification_loss(logits, target, self.class_weights, self.smoothing).mean()
            return value, ({"net": moved}, {"accuracy": topk_correct(logits, batch["label"], 1).mean()})

        return joint_step(
            self.learners, state, batch, key, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Sum top-1, top-5 and cross-entropy over the valid rows."""
        logits = self.net.infer(state.nets["net"], to_float(batch["image"]))
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
        guess = self.net.infer(state.nets["net"], image).argmax(-1)
        return {
            "classes": Panels(images=grey_to_rgb(image)[None], titles=(), guess=guess[None], truth=batch["label"][None])
        }

    def any_size(self) -> bool:
        """Return False: images are prepared as the test images are."""
        return False

    def forward(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b n"]:
        """Return class probabilities of images in [-1, 1]."""
        return jax.nn.softmax(self.net.infer(state.nets["net"], image))

    def predict(self, forward: Forward, image: np.ndarray) -> Classes:
        """Return the class probabilities of images f32[b h w c] in [-1, 1]."""
        return Classes(probability=forward(image))
