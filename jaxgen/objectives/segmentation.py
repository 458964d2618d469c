"""Segmentation: an image of any size in, an H×W×N map of logits out."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen import learner
from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import Confusion, Mean, predicted
from jaxgen.objective import Metrics, Scalars, TotalSteps
from jaxgen.optim.optimizer import Optimizer
from jaxgen.pictures.colours import palette
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.supervised.inference import Inference, Whole
from jaxgen.supervised.losses import CrossEntropy, Loss, per_image
from jaxgen.typing import IGNORE, Batch, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Any net that maps [b h w c] to [b h w n], trained by a loss over the pixels that count, measured by mIoU."""

    net: nn.Module
    optimizer: Optimizer
    loss: Loss = CrossEntropy()
    """Cross-entropy, Dice, Jaccard, Focal, Lovasz, or a Sum of them."""
    aux_weight: float = 0.4
    """Weight of the same loss on each auxiliary output, where the net has any."""
    inference: Inference = Whole()
    """How images are read when measured and predicted: whole, by a sliding window, or with test-time augmentation."""
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
        """Raise UserError unless the batch has masks and the net one output for each class."""
        if "mask" not in spec:
            raise UserError(f"segmentation needs a mask with each image; the data has {', '.join(spec)}")
        learner.check(self.net, spec, classes, self.microbatches, self.norm_groups)

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        return learner.init(self.net, self.tx, key, (learner.blank(spec),), self.averages)

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update."""

        def loss(params: Tree, stats: Tree, batch: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            mask = batch["mask"].astype(jnp.int32)
            image = to_float(batch["image"])
            logits, others, stats = learner.train_in_groups(
                self.net, params["net"], stats, key, image, self.norm_groups
            )
            value = self.loss(logits, mask).mean()
            for other in others:
                value += self.aux_weight * self.loss(other, mask).mean()
            right = ((predicted(logits) == mask) & (mask != IGNORE)).sum() / jnp.maximum((mask != IGNORE).sum(), 1)
            return value, (stats, {"pixel_accuracy": right})

        return learner.step(
            state, batch, key, loss, {"net": self.tx}, averages=self.averages, microbatches=self.microbatches
        )  # fmt: skip

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Count which class was taken for which over the valid rows' pixels, and sum the rows' losses."""
        logits = self._logits(state, to_float(batch["image"]))
        mask = batch["mask"].astype(jnp.int32)
        return {
            "confusion": Confusion.of(predicted(logits), mask, batch["valid"], max(logits.shape[-1], 2)),
            "loss": Mean.of(per_image(self.loss, logits, mask), batch["valid"]),
        }

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show images, the truth beneath, the prediction beneath that."""
        image = to_float(batch["image"])
        logits = self._logits(state, image)
        classes = max(logits.shape[-1], 2)
        rgb = grey_to_rgb(image)
        shown = [rgb, tint(rgb, batch["mask"], classes), tint(rgb, predicted(logits), classes)]
        return {"masks": Panels(images=jnp.stack(shown), titles=("image", "truth", "prediction"))}

    def predict(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        """Return the net's logits f32[b h w n] for images f32[b h w c] in [-1, 1], as `inference` may ask for them."""
        return learner.infer(self.net, state, image)

    def _logits(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        return self.inference.apply(lambda x: self.predict(state, x), image)


def tint(image: Float[Array, "b h w 3"], mask: Array, classes: int) -> Float[Array, "b h w 3"]:
    """Colour the grey of images in [-1, 1] by class; class 0 is darkened, pixels that do not count turn white."""
    mask = mask.astype(jnp.int32)
    colours = jnp.asarray(palette(classes)).astype(jnp.float32) / 127.5 - 1
    grey = image.mean(-1, keepdims=True)
    mixed = 0.2 * grey + 0.8 * colours[jnp.clip(mask, 0, classes - 1)]
    mixed = jnp.where((mask == 0)[..., None], 0.5 * (image - 1), mixed)
    return jnp.where((mask == IGNORE)[..., None], 1.0, mixed)
