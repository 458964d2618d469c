"""Losses of dense prediction and of classification: callable values that return f32[b], whose mean is the loss.

There is one path from a mask to a loss. `Loss.__call__` decides which pixels count and writes their truth as one-hot
rows, zero where a pixel is ignored; each loss computes one cost and one mass per image from them, and `_average`
divides by the whole batch's mass. Hence, for every loss here:

- a pixel of id 255 has no influence, nor has an image of such pixels alone; a batch of them costs 0, its gradient is 0;
- an id that is neither a class nor 255 makes the loss NaN: a device cannot raise an error, and a guess would hide it;
- a net with one logit x is the net with the two logits (0, x): cross-entropy is then binary cross-entropy, and region
  losses use background and foreground;
- under gradient accumulation each part of the batch is divided by its own mass.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from jaxgen.errors import UserError
from jaxgen.typing import IGNORE

Pixels = Float[Array, "b p n"]  # p = h w pixels in a row


class Loss(abc.ABC):
    """Map logits f32[b h w n] and a mask of ids 0..n-1 or 255 to f32[b], whose mean over b is the loss of the batch."""

    def __call__(self, logits: Float[Array, "b h w n"], mask: Integer[Array, "b h w"]) -> Float[Array, " b"]:
        b, h, w, n = logits.shape
        logits = logits.astype(jnp.float32).reshape(b, h * w, n)
        if n == 1:
            logits = jnp.concatenate([jnp.zeros_like(logits), logits], -1)
        ids = mask.astype(jnp.int32).reshape(b, h * w)
        valid = ids != IGNORE
        foreign = (valid & ((ids < 0) | (ids >= logits.shape[-1]))).any(1)
        truth = jax.nn.one_hot(ids, logits.shape[-1])  # an id out of range is a row of zeros: no index is ever followed
        return self.of_pixels(jax.nn.log_softmax(logits), truth, valid) * jnp.where(foreign, jnp.nan, 1.0)

    @abc.abstractmethod
    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        """Measure log-probabilities against one-hot truth, whose rows are zero where a pixel is not valid."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy; the batch's pixels are averaged as in torch, by the weight of their true class."""

    class_weights: tuple[float, ...] = ()
    """One weight for each class; () weighs all alike."""
    smoothing: float = 0.0
    """Share of the truth that is distributed evenly over all classes (arXiv:1512.00567, section 7)."""
    keep: float = 1.0
    """Share of each image's counted pixels, those of highest loss, that is learned from (arXiv:1604.03540)."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UserError(f"CrossEntropy.smoothing must be at least 0 and below 1; got {self.smoothing}")
        if not 0 < self.keep <= 1:
            raise UserError(f"CrossEntropy.keep must be above 0 and at most 1; got {self.keep}")

    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        cost, mass = _cross_entropy(log_p, truth, self.class_weights, self.smoothing)
        if self.keep < 1:
            cost, mass = _hardest(cost, mass, valid, self.keep)
        return _average(cost.sum(1), mass.sum(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Focal(Loss):
    """Cross-entropy times (1 - p)^gamma, p being the probability of the true class (arXiv:1708.02002, equation 5)."""

    gamma: float = 2.0
    """How fast the weight of a pixel falls as it is predicted right; 0 is cross-entropy."""
    class_weights: tuple[float, ...] = ()
    """One weight for each class, the paper's alpha; () weighs all alike."""

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise UserError(f"Focal.gamma must be 0 or more; got {self.gamma}")

    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        cost, mass = _cross_entropy(log_p, truth, self.class_weights, 0.0)
        wrong = -jnp.expm1((truth * log_p).sum(-1))
        # The lower bound keeps the slope of wrong^gamma finite at 0 for gamma < 1.
        return _average((jnp.maximum(wrong, 1e-7) ** self.gamma * cost).sum(1), mass.sum(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tversky(Loss):
    """1 - TP / (TP + alpha FP + beta FN), from soft counts (arXiv:1706.05721).

    The counts are an image's own; its loss is the mean over the classes that are present in its truth, and needs no
    smoothing constant. An absent class is not scored: any probability above 0 would score worst. Its false alarms cost
    through the classes whose pixels they take: so for one logit, an empty mask costs 0 where it is predicted
    empty and 1 where it is predicted full.
    """

    alpha: float = 0.3
    """Weight of false positives."""
    beta: float = 0.7
    """Weight of false negatives."""

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta < 0:
            raise UserError(f"Tversky.alpha and beta must be 0 or more; got {self.alpha} and {self.beta}")

    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        p = jnp.exp(log_p) * valid[..., None]
        size = truth.sum(1)
        hits = (p * truth).sum(1)
        whole = hits + self.alpha * (p.sum(1) - hits) + self.beta * (size - hits)
        return _over_present(1 - hits / jnp.where(whole > 0, whole, 1.0), size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dice(Loss):
    """1 - 2 TP / (2 TP + FP + FN) from soft counts (arXiv:1606.04797, without the squares), which is Tversky(½, ½)."""

    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        return Tversky(alpha=0.5, beta=0.5).of_pixels(log_p, truth, valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jaccard(Loss):
    """1 - TP / (TP + FP + FN) from soft counts, which is Tversky(1, 1)."""

    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        return Tversky(alpha=1.0, beta=1.0).of_pixels(log_p, truth, valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lovasz(Loss):
    """Lovász-softmax: the convex extension of 1 - IoU, averaged over the classes that are present (arXiv:1705.08790).

    For each image alone: no sort spans devices, and an image's loss does not depend on the others of its batch.
    """

    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        error = jnp.where(valid[..., None], jnp.abs(truth - jnp.exp(log_p)), 0.0)
        gradient = jax.vmap(jax.vmap(_lovasz_gradient, in_axes=(1, 1, None), out_axes=1))(error, truth, valid)
        return _over_present((error * gradient).sum(1), truth.sum(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum(Loss):
    """A weighted sum of losses."""

    terms: tuple[tuple[float, Loss], ...] = ((1.0, CrossEntropy()), (1.0, Dice()))
    """(weight, loss) pairs."""

    def of_pixels(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        return sum((weight * loss.of_pixels(log_p, truth, valid) for weight, loss in self.terms), jnp.zeros(len(log_p)))


def classification_loss(
    logits: Float[Array, "b n"],
    targets: Float[Array, "b n"],
    class_weights: tuple[float, ...] = (),
    smoothing: float = 0.0,
) -> Float[Array, " b"]:
    """Cross-entropy of a classifier against soft labels, rows that add up to 1 (or to 0, to leave an example out).

    An example counts by the weight of its classes, as a pixel does: a classification is a mask of 1x1 pixels.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return _average(*_cross_entropy(log_p, targets, class_weights, smoothing))


def per_image(loss: Loss, logits: Float[Array, "b h w n"], mask: Integer[Array, "b h w"]) -> Float[Array, " b"]:
    """Return the loss of each image as a batch of one: their average does not depend on how images are batched."""
    return jax.vmap(lambda x, y: loss(x[None], y[None])[0])(logits, mask)


def _cross_entropy(
    log_p: Float[Array, "*p n"], truth: Float[Array, "*p n"], class_weights: tuple[float, ...], smoothing: float
) -> tuple[Float[Array, "*p"], Float[Array, "*p"]]:
    """Return each pixel's weighted cross-entropy, and the weight of its true class to divide by."""
    n = log_p.shape[-1]
    if len(class_weights) not in (0, n):
        raise UserError(f"class_weights has {len(class_weights)} entries, but there are {n} classes: give one for each")
    weights = jnp.broadcast_to(jnp.asarray(class_weights or (1.0,), jnp.float32), log_p.shape)
    mass = (truth * weights).sum(-1)
    if smoothing:
        truth = (1 - smoothing) * truth + smoothing / n * truth.sum(-1, keepdims=True)
    return -(truth * weights * log_p).sum(-1), mass


def _hardest(
    cost: Float[Array, "b p"], mass: Float[Array, "b p"], valid: Bool[Array, "b p"], share: float
) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
    """Keep this share of each image's counted pixels, those of highest cost: rounded, at least one, also with ties."""
    count = valid.sum(1)
    kept = jnp.minimum(jnp.maximum(jnp.round(share * count), 1), count)
    key = jnp.where(valid, -jax.lax.stop_gradient(cost), jnp.inf)
    _, cost, mass = jax.lax.sort((key, cost, mass), dimension=1, num_keys=1)
    first = jnp.arange(cost.shape[1])[None] < kept[:, None]
    return jnp.where(first, cost, 0.0), jnp.where(first, mass, 0.0)


def _lovasz_gradient(
    error: Float[Array, " p"], truth: Float[Array, " p"], valid: Bool[Array, " p"]
) -> Float[Array, " p"]:
    """Return by how much 1 - IoU of one class grows at each pixel when the wrong pixels are counted from the worst on.

    A pixel of the class leaves the intersection, any other joins the union. The growth (algorithm 1 of the paper) is
    written out: as a difference of two near-equal numbers it would lose most of its digits on a large image.
    """
    key = jax.lax.stop_gradient(jnp.where(valid, -error, 1.0))  # ignored pixels come last, where they change nothing
    _, order = jax.lax.sort((key, jnp.arange(key.shape[0])), num_keys=1)
    inside = truth[order]
    intersection = truth.sum() - jnp.cumsum(inside)
    union = truth.sum() + jnp.cumsum(1 - inside)
    gain = jnp.where(inside > 0, 1 / jnp.maximum(union, 1), intersection / jnp.maximum(union * (union - 1), 1))
    return jnp.zeros_like(gain).at[order].set(gain, unique_indices=True)


def _over_present(loss: Float[Array, "b n"], size: Float[Array, "b n"]) -> Float[Array, " b"]:
    """Average each image's losses over the classes of nonzero size, then over the images that have one."""
    present = size > 0
    total = jnp.where(present, loss, 0.0).sum(-1) / jnp.maximum(present.sum(-1), 1)
    return _average(total, present.any(-1).astype(jnp.float32))


def _average(cost: Float[Array, " b"], mass: Float[Array, " b"]) -> Float[Array, " b"]:
    """Scale so that the mean over b is sum(cost) / sum(mass), or 0 where nothing has mass."""
    total = mass.sum()
    return cost * (cost.shape[0] / jnp.where(total > 0, total, 1.0))
