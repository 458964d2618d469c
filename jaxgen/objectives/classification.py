"""Classification: an image in, one 1×N vector of logits out."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import optax
from jaxtyping import Array, PRNGKeyArray

from jaxgen import learner
from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import Mean, topk_correct
from jaxgen.objective import Metrics, Scalars, TotalSteps
from jaxgen.optim.optimizer import Optimizer
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.supervised.losses import classification_loss
from jaxgen.supervised.mixing import Mixing, NoMixing
from jaxgen.typing import Batch, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """Softmax cross-entropy of a net that maps [b h w c] to [b n]; measured by top-1 and top-5 accuracy."""

    net: nn.Module
    optimizer: Optimizer
    mixing: Mixing = NoMixing()
    """What is done to a batch's images and labels together: NoMixing, Mixup or CutMix."""
    smoothing: float = 0.0
    """Share of the label spread evenly over all classes."""
    class_weights: tuple[float, ...] = ()
    """One weight for each class; () weighs all alike."""
    averages: tuple[Any, ...] = ()
    """Moving averages of the weights to keep, of `Average`; evaluation uses the first, () keeps none."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    norm_groups: int = 1
    """Equal parts of the batch that normalise by statistics of their own: 1 for the whole batch on all devices, as many
    as devices for each device's share."""
    steps: TotalSteps = 1

    @property
    def tx(self) -> optax.GradientTransformation:
        return self.optimizer.transform(self.steps)

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError unless the batch has labels and the net one output for each class."""
        if "label" not in spec:
            raise UserError(f"classification needs a label with each image; the data has {', '.join(spec)}")
        learner.check(self.net, spec, classes, self.microbatches, self.norm_groups)

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        return learner.init(self.net, self.tx, key, (learner.blank(spec),), self.averages)

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update."""

        def loss(params: Tree, stats: Tree, batch: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            k_mix, k_net = jax.random.split(key)
            image, share = self.mixing.mix(k_mix, to_float(batch["image"]))
            logits, _, stats = learner.train_in_groups(self.net, params["net"], stats, k_net, image, self.norm_groups)
            label = jax.nn.one_hot(batch["label"], logits.shape[-1])
            target = share * label + (1 - share) * label[::-1]
            value = classification_loss(logits, target, self.class_weights, self.smoothing).mean()
            return value, (stats, {"accuracy": topk_correct(logits, batch["label"], 1).mean()})

        return learner.step(
            state, batch, key, loss, {"net": self.tx}, averages=self.averages, microbatches=self.microbatches
        )  # fmt: skip

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Sum top-1, top-5 and cross-entropy over the valid rows."""
        logits = learner.infer(self.net, state, to_float(batch["image"]))
        target = jax.nn.one_hot(batch["label"], logits.shape[-1])
        valid = batch["valid"]
        return {
            "accuracy": Mean.of(topk_correct(logits, batch["label"], 1), valid),
            "top5": Mean.of(topk_correct(logits, batch["label"], 5), valid),
            "loss": Mean.of(optax.softmax_cross_entropy(logits, target), valid),
        }

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show images with the class they are taken for."""
        image = to_float(batch["image"])
        guess = learner.infer(self.net, state, image).argmax(-1)
        return {
            "classes": Panels(images=grey_to_rgb(image)[None], titles=(), guess=guess[None], truth=batch["label"][None])
        }

    def predict(self, state: State, image: Array) -> Array:
        """Return class probabilities f32[b n] of images f32[b h w c] in [-1, 1]."""
        return jax.nn.softmax(learner.infer(self.net, state, image))
