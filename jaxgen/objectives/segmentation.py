"""Segmentation: an image of any size in, an H×W×N map of logits out."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.data.source import check_mask_classes
from jaxgen.errors import UserError, check_field
from jaxgen.learner import Learner, Scalars, blank, first_state, joint_step
from jaxgen.metrics.accumulators import Confusion, Mean, predicted
from jaxgen.nn.interfaces import Segmenter, require
from jaxgen.objective import Forward, Mask, Metrics, TotalSteps
from jaxgen.objectives.checks import check_groups, check_outputs
from jaxgen.pictures.colours import tint
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb, to_float
from jaxgen.state import State
from jaxgen.supervised.inference import Inference, Whole
from jaxgen.supervised.losses import CrossEntropy, Loss, per_image
from jaxgen.typing import IGNORE, Batch, Spec, Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """Any net that maps [b h w c] to [b h w n], trained by a loss over the pixels that count, measured by mIoU."""

    net: Learner
    loss: Loss = CrossEntropy()
    """Cross-entropy, Dice, Jaccard, Focal, Lovasz, or a Sum of them."""
    aux_weight: float = 0.4
    """Weight of the same loss on each auxiliary output, where the net has any."""
    inference: Inference = Whole()
    """How images are read when measured and predicted: whole, by a sliding window, or with test-time augmentation."""
    microbatches: int = 1
    """Equal parts of the batch whose gradients are accumulated one after the other."""
    norm_groups: int = 1
    """Equal parts of the batch that normalise by statistics of their own: 1 for the whole batch on all devices, as many
    as devices for each device's share."""
    total_steps: TotalSteps = 1

    def __post_init__(self) -> None:
        check_field(self, "aux_weight", 0 <= self.aux_weight < math.inf, "0 or more")

    @property
    def learners(self) -> Mapping[str, Learner]:
        return {"net": self.net}

    @property
    def batch_parts(self) -> int:
        return 1

    def check(self, spec: Spec, classes: tuple[str, ...]) -> None:
        """Raise UserError unless the batch has masks, and net and loss fit their classes."""
        if "mask" not in spec:
            raise UserError(f"segmentation needs a mask with each image; the data has {', '.join(spec)}")
        check_mask_classes(len(classes))
        require(self.net.module, Segmenter, "net")
        check_groups(spec, self.microbatches, self.norm_groups)
        check_outputs(self.net.module, spec, classes)
        pixel, mask = jnp.zeros((1, 1, 1, len(classes))), jnp.zeros((1, 1, 1), jnp.int32)
        jax.eval_shape(self.loss, pixel, mask)  # the loss refuses class weights that do not fit

    def init(self, key: PRNGKeyArray, spec: Spec) -> State:
        """Make the first state."""
        return first_state({"net": self.net.init(key, blank(spec), total_steps=self.total_steps)})

    def step(self, state: State, batch: Batch, key: PRNGKeyArray) -> tuple[State, Scalars]:
        """Make one update."""

        whole = batch["mask"].astype(jnp.int32)
        counted = jnp.maximum((whole != IGNORE).sum(), 1)

        def loss(params: Tree, stats: Tree, part: Batch, key: PRNGKeyArray) -> tuple[Array, tuple[Tree, Scalars]]:
            mask = part["mask"].astype(jnp.int32)
            image = to_float(part["image"])
            logits, aux, moved = self.net.train_in_groups(params["net"], stats["net"], key, image, self.norm_groups)
            value = self.loss(logits, mask, whole).mean()
            for other in aux:
                value += self.aux_weight * self.loss(other, mask, whole).mean()
            right = ((predicted(logits) == mask) & (mask != IGNORE)).sum() * (len(whole) / len(mask))
            return value, ({"net": moved}, {"pixel_accuracy": right / counted})

        return joint_step(
            self.learners, state, batch, key, loss, total_steps=self.total_steps, microbatches=self.microbatches
        )

    def evaluate(self, state: State, batch: Batch, key: PRNGKeyArray) -> Metrics:
        """Count which class was predicted for which over the valid rows' pixels, and sum the rows' losses.

        A row whose pixels are all ignored has no loss.
        """
        logits = self._logits(state, to_float(batch["image"]))
        mask = batch["mask"].astype(jnp.int32)
        return {
            "confusion": Confusion.of(predicted(logits), mask, batch["valid"], max(logits.shape[-1], 2)),
            "loss": Mean.of(per_image(self.loss, logits, mask), batch["valid"] & (mask != IGNORE).any((1, 2))),
        }

    def preview(self, state: State, batch: Batch, key: PRNGKeyArray) -> dict[str, Panels]:
        """Show images, the truth beneath, the prediction beneath that."""
        image = to_float(batch["image"])
        logits = self._logits(state, image)
        classes = max(logits.shape[-1], 2)
        rgb = grey_to_rgb(image)
        rows = [rgb, tint(rgb, batch["mask"], classes), tint(rgb, predicted(logits), classes)]
        return {"masks": Panels(images=jnp.stack(rows), titles=("image", "truth", "prediction"))}

    def any_size(self) -> bool:
        """Return True: logits have their image's size."""
        return True

    def forward(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        """Return the net's logits for images in [-1, 1], as `inference` may ask for them."""
        return self.net.infer(state.nets["net"], image).astype(jnp.float32)

    def predict(self, forward: Forward, image: np.ndarray) -> Mask:
        """Return the logits of images f32[b h w c] in [-1, 1], found as in evaluation."""
        return Mask(logits=self.inference.on_host(forward, image))

    def _logits(self, state: State, image: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        return self.inference.apply(lambda x: self.forward(state, x), image)
