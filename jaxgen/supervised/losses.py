"""Losses of dense prediction and of classification: callable values that return f32[b], whose mean is the loss.

There is one path from a mask to a loss. `Loss.__call__` decides which pixels count and writes their truth as one-hot
rows, zero where a pixel is ignored. Each loss computes one cost for each image from them, and a mass from the truth
alone; the batch's costs are divided by the batch's mass. Hence, for every loss here:

- a pixel of id 255 has no influence, nor has an image of such pixels alone; a batch of them costs 0, its gradient is 0;
- an id that is neither a class nor 255 makes the loss NaN: a device cannot raise an error, and a guess would hide it;
- a net with one logit x is the net with the two logits (0, x): cross-entropy is then binary cross-entropy, and region
  losses use background and foreground;
- under gradient accumulation each part is divided by the mass of the whole batch, which is known before it is split:
  the mean over equal parts is the batch's loss, and its gradient the batch's.
"""

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer

from jaxgen.errors import UserError, check_field
from jaxgen.metrics.accumulators import class_logits
from jaxgen.typing import IGNORE

Pixels = Float[Array, "b p n"]  # p = h w pixels in a row


def check_class_weights(owner: object, weights: tuple[float, ...]) -> None:
    """Raise UserError unless its field `class_weights` holds none, or numbers of 0 or more that are not all 0."""
    good = not weights or (all(0 <= weight < math.inf for weight in weights) and any(weights))
    check_field(owner, "class_weights", good, "one number for each class, each 0 or more, and not all 0")


class Loss(abc.ABC):
    """Map logits f32[b h w n] and a mask of ids 0..n-1 or 255 to f32[b], whose mean over b is the loss of the batch."""

    def __call__(
        self,
        logits: Float[Array, "b h w n"],
        mask: Integer[Array, "b h w"],
        whole: Integer[Array, "whole h w"] | None = None,
    ) -> Float[Array, " b"]:
        """`whole` holds the masks of the batch that these images are an equal part of; None: there are no others."""
        logits = class_logits(logits.reshape(len(logits), -1, logits.shape[-1]))
        n = logits.shape[-1]
        ids = _ids(mask)
        valid = ids != IGNORE
        foreign = (valid & ((ids < 0) | (ids >= n))).any(1)
        truth = jax.nn.one_hot(ids, n)  # an id out of range is a row of zeros: no index is ever followed
        whole_truth = truth if whole is None else jax.nn.one_hot(_ids(whole), n)
        return self.of_pixels(jax.nn.log_softmax(logits), truth, valid, whole_truth) * jnp.where(foreign, jnp.nan, 1.0)

    @abc.abstractmethod
    def of_pixels(
        self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"], whole: Float[Array, "whole p n"]
    ) -> Float[Array, " b"]:
        """Measure log-probabilities against one-hot truth, whose rows are zero where a pixel is not valid.

        `whole` is the truth of the batch that these images are a part of.
        """


class Averaged(Loss):
    """A loss that is a sum of costs, divided by a sum of masses that the truth alone decides."""

    def of_pixels(
        self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"], whole: Float[Array, "whole p n"]
    ) -> Float[Array, " b"]:
        return _average(self.cost(log_p, truth, valid), self.mass(whole))

    @abc.abstractmethod
    def cost(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        """Return what each image costs."""

    def mass(self, truth: Pixels) -> Float[Array, " b"]:
        """Return what each image counts: 1 unless no pixel of it does."""
        return (truth > 0).any((1, 2)).astype(jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossEntropy(Averaged):
    """Softmax cross-entropy; the batch's pixels are averaged as in torch, by the weight of their true class."""

    class_weights: tuple[float, ...] = ()
    """One weight for each class; () weighs all alike."""
    smoothing: float = 0.0
    """Share of the truth that is distributed evenly over all classes (arXiv:1512.00567, section 7)."""
    keep: float = 1.0
    """Share of each image's counted pixels, those of highest loss, that is learned from (arXiv:1604.03540): their
    costs are divided by this share of all weights."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise UserError(f"CrossEntropy.smoothing must be at least 0 and below 1; got {self.smoothing}")
        if not 0 < self.keep <= 1:
            raise UserError(f"CrossEntropy.keep must be above 0 and at most 1; got {self.keep}")
        check_class_weights(self, self.class_weights)

    def cost(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        cost = _cross_entropy(log_p, truth, self.class_weights, self.smoothing)
        return (_hardest(cost, valid, self.keep) if self.keep < 1 else cost).sum(1)

    def mass(self, truth: Pixels) -> Float[Array, " b"]:
        mass = _weights(truth, self.class_weights).sum(1)
        if self.keep == 1:
            return mass
        count = truth.sum((1, 2))
        return mass * _kept(count, self.keep) / jnp.maximum(count, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Focal(Averaged):
    """Cross-entropy times (1 - p)^gamma, p being the probability of the true class (arXiv:1708.02002, equation 5)."""

    gamma: float = 2.0
    """How fast the weight of a pixel falls as it is predicted right; 0 is cross-entropy."""
    class_weights: tuple[float, ...] = ()
    """One weight for each class, the paper's alpha; () weighs all alike."""

    def __post_init__(self) -> None:
        if self.gamma < 0:
            raise UserError(f"Focal.gamma must be 0 or more; got {self.gamma}")
        check_class_weights(self, self.class_weights)

    def cost(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        cost = _cross_entropy(log_p, truth, self.class_weights, 0.0)
        wrong = -jnp.expm1((truth * log_p).sum(-1))
        # The lower bound keeps the slope of wrong^gamma finite at 0 for gamma < 1.
        return (jnp.maximum(wrong, 1e-7) ** self.gamma * cost).sum(1)

    def mass(self, truth: Pixels) -> Float[Array, " b"]:
        return _weights(truth, self.class_weights).sum(1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tversky(Averaged):
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

    def cost(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        p = jnp.exp(log_p) * valid[..., None]
        size = truth.sum(1)
        hits = (p * truth).sum(1)
        whole = hits + self.alpha * (p.sum(1) - hits) + self.beta * (size - hits)
        return _over_present(1 - hits / jnp.where(whole > 0, whole, 1.0), size)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dice(Averaged):
    """1 - 2 TP / (2 TP + FP + FN) from soft counts (arXiv:1606.04797, without the squares), which is Tversky(½, ½)."""

    def cost(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        return Tversky(alpha=0.5, beta=0.5).cost(log_p, truth, valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jaccard(Averaged):
    """1 - TP / (TP + FP + FN) from soft counts, which is Tversky(1, 1)."""

    def cost(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        return Tversky(alpha=1.0, beta=1.0).cost(log_p, truth, valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lovasz(Averaged):
    """Lovász-softmax: the convex extension of 1 - IoU, averaged over the classes that are present (arXiv:1705.08790).

    For each image alone: no sort spans devices, and an image's loss does not depend on the others of its batch.
    """

    def cost(self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"]) -> Float[Array, " b"]:
        error = jnp.where(valid[..., None], jnp.abs(truth - jnp.exp(log_p)), 0.0)
        gradient = jax.vmap(jax.vmap(_lovasz_gradient, in_axes=(1, 1, None), out_axes=1))(error, truth, valid)
        return _over_present((error * gradient).sum(1), truth.sum(1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum(Loss):
    """A weighted sum of losses."""

    terms: tuple[tuple[float, Loss], ...] = ((1.0, CrossEntropy()), (1.0, Dice()))
    """(weight, loss) pairs; a weight is 0 or more."""

    def __post_init__(self) -> None:
        good = bool(self.terms) and all(0 <= weight < math.inf for weight, _ in self.terms)
        check_field(self, "terms", good, "one or more (weight, loss) pairs, each weight 0 or more")

    def of_pixels(
        self, log_p: Pixels, truth: Pixels, valid: Bool[Array, "b p"], whole: Float[Array, "whole p n"]
    ) -> Float[Array, " b"]:
        each = (weight * loss.of_pixels(log_p, truth, valid, whole) for weight, loss in self.terms)
        return sum(each, jnp.zeros(len(log_p)))


def classification_loss(
    logits: Float[Array, "b n"],
    targets: Float[Array, "b n"],
    class_weights: tuple[float, ...] = (),
    smoothing: float = 0.0,
    whole: Float[Array, "whole n"] | None = None,
) -> Float[Array, " b"]:
    """Cross-entropy of a classifier against soft labels, rows that add up to 1 (or to 0, to leave an example out).

    An example counts by the weight of its classes, as a pixel does: a classification is a mask of 1x1 pixels. `whole`
    holds the labels of the batch that these rows are an equal part of; None: there are no others.
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    mass = _weights(targets if whole is None else whole, class_weights)
    return _average(_cross_entropy(log_p, targets, class_weights, smoothing), mass)


def per_image(loss: Loss, logits: Float[Array, "b h w n"], mask: Integer[Array, "b h w"]) -> Float[Array, " b"]:
    """Return the loss of each image as a batch of one: their average does not depend on how images are batched."""
    return jax.vmap(lambda x, y: loss(x[None], y[None])[0])(logits, mask)


def _ids(mask: Integer[Array, "b h w"]) -> Int[Array, "b p"]:
    return mask.astype(jnp.int32).reshape(len(mask), -1)


def _each(class_weights: tuple[float, ...], shape: tuple[int, ...]) -> Array:
    n = shape[-1]
    if len(class_weights) not in (0, n):
        raise UserError(f"class_weights has {len(class_weights)} entries, but there are {n} classes: give one for each")
    return jnp.broadcast_to(jnp.asarray(class_weights or (1.0,), jnp.float32), shape)


def _weights(truth: Float[Array, "*p n"], class_weights: tuple[float, ...]) -> Float[Array, "*p"]:
    """Return the weight of each pixel's true class, 0 where there is none."""
    return (truth * _each(class_weights, truth.shape)).sum(-1)


def _cross_entropy(
    log_p: Float[Array, "*p n"], truth: Float[Array, "*p n"], class_weights: tuple[float, ...], smoothing: float
) -> Float[Array, "*p"]:
    """Return each pixel's weighted cross-entropy."""
    if smoothing:
        truth = (1 - smoothing) * truth + smoothing / log_p.shape[-1] * truth.sum(-1, keepdims=True)
    return -(truth * _each(class_weights, log_p.shape) * log_p).sum(-1)


def _kept(count: Array, share: float) -> Array:
    """Return this share of so many pixels: rounded, at least one, and no more than there are."""
    return jnp.minimum(jnp.maximum(jnp.round(share * count), 1), count)


def _hardest(cost: Float[Array, "b p"], valid: Bool[Array, "b p"], share: float) -> Float[Array, "b p"]:
    """Keep this share of each image's counted pixels, those of highest cost, also with ties."""
    key = jnp.where(valid, -jax.lax.stop_gradient(cost), jnp.inf)
    _, cost = jax.lax.sort((key, cost), dimension=1, num_keys=1)
    first = jnp.arange(cost.shape[1])[None] < _kept(valid.sum(1), share)[:, None]
    return jnp.where(first, cost, 0.0)


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
    """Average each image's losses over the classes of nonzero size."""
    present = size > 0
    return jnp.where(present, loss, 0.0).sum(-1) / jnp.maximum(present.sum(-1), 1)


def _average(cost: Float[Array, " b"], mass: Float[Array, " whole"]) -> Float[Array, " b"]:
    """Scale so that the mean over the whole batch is sum(cost) / sum(mass), or 0 where nothing has mass."""
    total = mass.sum()
    return cost * (mass.shape[0] / jnp.where(total > 0, total, 1.0))
