"""The condition of a net and its noise level, as vectors."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxgen.errors import UserError
from jaxgen.typing import Condition


def one_hot(label: Int[Array, " b"], classes: int) -> Float[Array, "b n"]:
    """Turn class ids into class weights f32[b classes + 1]; id `classes` is the null class, the last column."""
    return jax.nn.one_hot(label, classes + 1)


def label_weights(condition: Condition, classes: int) -> Float[Array, "b n"] | None:
    """Return the condition's class weights f32[b classes + 1]; None for a net without classes.

    Raises UserError where the label is missing, unwanted or of another shape, and where the condition holds arrays of
    other names.
    """
    if others := sorted(condition.keys() - {"label"}):
        raise UserError(f"the net takes no condition named {', '.join(others)}; drop it, or use a net that takes it")
    label = condition.get("label")
    if not classes:
        if label is not None:
            raise UserError("the net got a label and has classes=0; set its `classes` to the data's, or drop the label")
        return None
    if label is None:
        raise UserError(f"the net has {classes} classes and got no label; give it class weights, or set `classes=0`")
    if label.ndim != 2:
        raise UserError(
            f"the net got a label of shape {label.shape}; it takes class weights [b {classes + 1}], which "
            "jaxgen.nn.conditioning.one_hot makes from class ids"
        )
    if label.shape[1] != classes + 1:
        raise UserError(
            f"the label has {label.shape[1]} columns where {classes} classes and the null class need {classes + 1}; "
            "set the net's `classes` to the data's"
        )
    return label


def scaled_label_weights(condition: Condition, classes: int, batch: int) -> Float[Array, "{batch} {classes}"] | None:
    """Return class weights without the null class' column, scaled so that one-hot rows have unit mean square.

    A condition without a label means the null class, rows of zeros. None for a net without classes; raises UserError
    as `label_weights` does.
    """
    if classes and "label" not in condition:
        condition = {**condition, "label": one_hot(jnp.full(batch, classes), classes)}
    label = label_weights(condition, classes)
    return None if label is None else label[:, :-1] * math.sqrt(classes)


def text_of(condition: Condition) -> tuple[Float[Array, "b n c"], Float[Array, "b d"], Bool[Array, "b n"] | None]:
    """Return a condition's text: a vector for each token, one for the whole, and which tokens may be attended to.

    No mask, None, is for all tokens. Raises UserError where a vector is missing or of another shape, and where the
    condition holds arrays of other names.
    """
    if others := sorted(condition.keys() - {"text", "pooled", "text_mask"}):
        raise UserError(f"the net takes a text and no condition named {', '.join(others)}; drop it, or use another net")
    for name, shape in (("text", "[b n c]"), ("pooled", "[b d]")):
        if name not in condition:
            raise UserError(f"the net takes a text and got no {name!r}; set objective.text, or use a net without text")
        if condition[name].ndim != len(shape.split()):
            raise UserError(f"the net got {name!r} of shape {condition[name].shape}; it takes vectors {shape}")
    text, mask = condition["text"], condition.get("text_mask")
    if mask is not None and mask.shape != text.shape[:2]:
        raise UserError(f"the net got 'text_mask' of shape {mask.shape}; for this text it is {text.shape[:2]}")
    return text, condition["pooled"], mask


class ClassEmbed(nn.Module):
    """Map class weights f32[b classes + 1] to the weighted sum of learned class vectors; the null class' is 0."""

    classes: int
    features: int
    """Length of a vector."""
    embedding_init: nn.initializers.Initializer = nn.initializers.normal(1.0)

    @nn.compact
    def __call__(self, weights: Float[Array, "b n"]) -> Float[Array, "b d"]:
        table = self.param("embedding", self.embedding_init, (self.classes, self.features))
        # In full float32: a one-hot row must give a row of the table, and not the row rounded to bfloat16.
        return jnp.matmul(weights[:, :-1], table, precision=jax.lax.Precision.HIGHEST)


class ConditionEmbedding(nn.Module):
    """Map noise level and class to one vector, in float32: f32[b width].

    Raises UserError where the condition does not fit `classes`.
    """

    width: int
    classes: int = 0
    frequency: float = 1.0
    """The highest frequency of the noise level's sinusoids, in radians per unit."""

    @nn.compact
    def __call__(self, noise: Float[Array, " b"], condition: Condition) -> Float[Array, "b c"]:
        label = label_weights(condition, self.classes)
        small = nn.initializers.normal(0.02)
        c = sinusoid(self.frequency * noise, 256)
        c = nn.silu(nn.Dense(self.width, kernel_init=small, name="noise1")(c))
        c = nn.Dense(self.width, kernel_init=small, name="noise2")(c)
        if label is None:
            return c
        return c + label @ self.param("label", small, (self.classes + 1, self.width))


def sinusoid(
    x: Float[Array, " b"], channels: int, *, longest: float = 10_000.0, endpoint: bool = False
) -> Float[Array, "b {channels}"]:
    """Return cosines, then sines, of x at channels / 2 frequencies falling geometrically from 1 (arXiv:1706.03762).

    The lowest frequency is 1 / longest with `endpoint` (EDM's DDPM++), one ratio above it without (ADM, DiT).
    """
    half = channels // 2
    exponent = jnp.arange(half, dtype=jnp.float32) / (half - endpoint)
    angle = x.astype(jnp.float32)[:, None] * jnp.exp(-math.log(longest) * exponent)[None]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)


class Fourier(nn.Module):
    """Return cosines of x at fixed random frequencies and phases, of unit variance (EDM2, arXiv:2312.02696, B.3)."""

    channels: int
    bandwidth: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, " b"]) -> Float[Array, "b _"]:
        # Constants of the net, not weights: they are saved with it, and no optimizer sees them.
        frequency = self.variable("constants", "frequency", self._normal, 2 * math.pi * self.bandwidth)
        phase = self.variable("constants", "phase", self._uniform)
        angle = x.astype(jnp.float32)[:, None] * frequency.value[None] + phase.value[None]
        return jnp.cos(angle) * math.sqrt(2.0)

    def _normal(self, scale: float) -> Float[Array, " c"]:
        return scale * jax.random.normal(self.make_rng("params"), (self.channels,))

    def _uniform(self) -> Float[Array, " c"]:
        return 2 * math.pi * jax.random.uniform(self.make_rng("params"), (self.channels,))
