"""Generator and discriminator of piano rolls after MuseGAN (arXiv:1709.06298), at the size of a chorale.

Rolls are f32[b t r v]: time, rows and voices. The last row but one is the rest, the last the onset; those before are
pitches, of which exactly one sounds unless the voice rests.

Layers whose kernel is their stride map blocks of steps, or octaves, to cells and back: products of matrices.
"""

import functools
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.errors import UserError
from jaxgen.nn.conditioning import ClassEmbed, label_weights
from jaxgen.nn.straight_through import bits, likeliest
from jaxgen.typing import Condition, Precision

Map = Float[Array, "b _ _ _"]

OCTAVE, BEAT, BAR = 12, 4, 16  # rows, steps, steps
SILENT = 2  # rows that are no pitches

_leaky = functools.partial(nn.leaky_relu, negative_slope=0.2)
# He's rule for a leaky ReLU of slope 0.2 (arXiv:1502.01852, equation 15); no layer here normalises.
_he = nn.initializers.variance_scaling(2 / (1 + 0.2**2), "fan_in", "normal")
_lecun = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Spread(nn.Module):
    """Make a block of `times` × `rows` cells of each cell: a transposed convolution whose kernel is its stride."""

    features: int
    times: int = 1
    rows: int = 1
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map) -> Map:
        b, t, r, _ = x.shape
        y = nn.Dense(self.times * self.rows * self.features, kernel_init=_he, dtype=self.dtype, name="cells")(x)
        y = y.reshape(b, t, r, self.times, self.rows, self.features).transpose(0, 1, 3, 2, 4, 5)
        return _leaky(y.reshape(b, t * self.times, r * self.rows, self.features))


class Gather(nn.Module):
    """Make a cell of each block of `times` × `rows` cells: a convolution whose kernel is its stride."""

    features: int
    times: int = 1
    rows: int = 1
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map) -> Map:
        b, t, r, c = x.shape
        blocks = x.reshape(b, t // self.times, self.times, r // self.rows, self.rows, c).transpose(0, 1, 3, 2, 4, 5)
        flat = blocks.reshape(b, t // self.times, r // self.rows, self.times * self.rows * c)
        return _leaky(nn.Dense(self.features, kernel_init=_he, dtype=self.dtype, name="block")(flat))


class Mix(nn.Module):
    """A convolution over beats that keeps the size, as a residual."""

    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Map) -> Map:
        return x + _leaky(nn.Conv(x.shape[-1], (3, 1), kernel_init=_he, dtype=self.dtype, name="beats")(x))


class RollGenerator(nn.Module):
    """Map z f32[b latent], standard normal, to rolls f32[b steps rows voices] of exactly -1 and 1.

    The shared part makes beats × octaves of z, a private part for each voice makes its steps and pitches of them, the
    one way round and the other. At each step a voice decides for its likeliest pitch or rest, and whether a note
    begins; the gradient is that of the probabilities, so that the discriminator never sees anything undecided.
    `truncation` scales z; `noise` is not used. Raises UserError unless steps are whole bars of 16, rows whole octaves
    of 12, and the condition fits `classes`.
    """

    latent: int = 128
    """Length of z."""
    classes: int = 0
    """Classes, whose weights are appended to z; 0 for none."""
    steps: int = 32
    rows: int = 48
    voices: int = 4
    width: int = 128
    """Channels of the shared part; a quarter of them in the first layer of a voice's own."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and rolls are float32."""

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "b z"],
        condition: Condition,
        noise: Key[Array, " b"],
        *,
        train: bool,
        truncation: float = 1.0,
    ) -> Float[Array, "b t r v"]:
        del noise, train  # z is all that is random here, in training too
        label = label_weights(condition, self.classes)
        _check_size(self.steps, self.rows)
        x = z * truncation
        if label is not None:
            x = jnp.concatenate([x, label[:, :-1]], axis=1)
        spread = functools.partial(Spread, dtype=self.dtype)
        x = spread(2 * self.width, self.steps // BAR, name="bars")(x[:, None, None])
        x = spread(2 * self.width, BAR // BEAT, name="beats")(x)
        x = Mix(self.dtype, name="phrase")(x)
        x = spread(self.width, rows=self.rows // OCTAVE, name="octaves")(x)
        x = Mix(self.dtype, name="line")(x)
        logits = jnp.concatenate([self._voice(x, voice) for voice in range(self.voices)], axis=-1)
        return 2 * jnp.concatenate([likeliest(logits[:, :, :-1], axis=2), bits(logits[:, :, -1:])], axis=2) - 1

    def _voice(self, x: Map, voice: int) -> Map:
        """Return a voice's logits f32[b steps rows 1]."""
        spread = functools.partial(Spread, dtype=self.dtype)
        w = self.width // 8
        pitches = spread(w, rows=OCTAVE, name=f"pitches_{voice}")(x)
        a = spread(w, BEAT, name=f"pitches_steps_{voice}")(pitches)
        steps = spread(2 * w, BEAT, name=f"steps_{voice}")(x)
        b = spread(w, rows=OCTAVE, name=f"steps_pitches_{voice}")(steps)
        both = jnp.concatenate([a, b], axis=-1).astype(jnp.float32)
        return nn.Dense(1, kernel_init=_lecun, name=f"logits_{voice}")(both)


class RollDiscriminator(nn.Module):
    """Map rolls f32[b t r v] to logits f32[b], higher where more real.

    Four streams, joined at beats: a private part for each voice, the generator's in reverse; the convolution of all
    voices in time and pitch; chroma, the pitch classes of each voice on their circle, which hears harmony alike in
    every key; and onsets, what begins at each step. Inputs between -1 and 1 are allowed, as gradient penalties need
    them. No layer mixes examples. Raises UserError unless steps are whole bars of 16 and rows whole octaves of 12, and
    the condition fits `classes`.
    """

    classes: int = 0
    """Number of classes, which enter by projection (arXiv:1802.05637, equation 3); 0 for none."""
    width: int = 64
    """Channels of each stream at beats."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and logits are float32."""

    @nn.compact
    def __call__(self, image: Float[Array, "b *s"], condition: Condition, *, train: bool) -> Float[Array, " b"]:
        del train  # nothing here differs
        label = label_weights(condition, self.classes)
        if image.ndim != 4:
            raise UserError(f"roll discriminator: rolls have time, rows and voices; these are {image.shape[1:]}")
        _check_size(*image.shape[1:3])
        roll = (image + 1) / 2
        voices = jnp.concatenate([self._voice(roll[..., v : v + 1], v) for v in range(roll.shape[-1])], axis=-1)
        octaves = Gather(self.width, rows=voices.shape[2], dtype=self.dtype, name="octaves")(voices)
        streams = [octaves, self._texture(roll), self._chroma(roll), self._onsets(roll)]
        x = jnp.concatenate(streams, axis=-1)  # at beats
        x = Gather(2 * self.width, dtype=self.dtype, name="join")(x)
        x = Mix(self.dtype, name="phrase")(x)
        x = Gather(2 * self.width, BAR // BEAT, dtype=self.dtype, name="bars")(x)
        x = Gather(2 * self.width, x.shape[1], dtype=self.dtype, name="whole")(x)[:, 0, 0].astype(jnp.float32)
        logit = nn.Dense(1, kernel_init=_lecun, name="out")(x)[:, 0]
        if label is None:
            return logit
        start = nn.initializers.normal(1 / math.sqrt(x.shape[-1]))
        return logit + (ClassEmbed(self.classes, x.shape[-1], start, name="label")(label) * x).sum(1)

    def _voice(self, x: Map, voice: int) -> Map:
        """Return a voice at beats × octaves."""
        gather, w = functools.partial(Gather, dtype=self.dtype), self.width // 4
        a = gather(w, rows=OCTAVE, name=f"pitches_{voice}")(x)
        a = gather(2 * w, BEAT, name=f"pitches_steps_{voice}")(a)
        b = gather(w, BEAT, name=f"steps_{voice}")(x)
        b = gather(2 * w, rows=OCTAVE, name=f"steps_pitches_{voice}")(b)
        return jnp.concatenate([a, b], axis=-1)

    def _texture(self, roll: Map) -> Map:
        """Return how all voices move in time and pitch, at beats."""
        conv = functools.partial(nn.Conv, kernel_init=_he, dtype=self.dtype)
        x = _leaky(conv(self.width // 4, (4, 8), strides=(2, 4), name="texture0")(roll))
        x = _leaky(conv(self.width // 2, (4, 4), strides=(2, 2), name="texture1")(x))
        return Gather(self.width, rows=x.shape[2], dtype=self.dtype, name="texture2")(x)

    def _chroma(self, roll: Map) -> Map:
        """Return the harmony at beats: pitch classes of each voice, summed over octaves, by kernels on their circle."""
        b, t, rows, voices = roll.shape
        pitches = jnp.pad(roll[:, :, :-SILENT], ((0, 0), (0, 0), (0, SILENT), (0, 0)))
        classes = pitches.reshape(b, t, rows // OCTAVE, OCTAVE, voices).sum(2)
        circle = jnp.pad(classes, ((0, 0), (0, 0), (0, OCTAVE - 1), (0, 0)), mode="wrap")
        conv = nn.Conv(self.width // 2, (1, OCTAVE), padding="VALID", kernel_init=_he, dtype=self.dtype, name="chroma0")
        return Gather(self.width, BEAT, OCTAVE, self.dtype, name="chroma1")(_leaky(conv(circle)))

    def _onsets(self, roll: Map) -> Map:
        """Return the rhythm at beats: the onset's row, and how much of each voice sounds that did not before."""
        pitches = roll[:, :, :-SILENT]
        before = jnp.pad(pitches, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]
        begun = nn.relu(pitches - before).sum(2, keepdims=True)
        x = jnp.concatenate([begun, roll[:, :, -1:]], axis=-1)
        return Gather(self.width // 2, BEAT, dtype=self.dtype, name="onsets")(x)


def _check_size(steps: int, rows: int) -> None:
    if steps < BAR or steps % BAR or rows < 2 * OCTAVE or rows % OCTAVE:
        raise UserError(
            f"rolls of {steps} steps × {rows} rows: these nets take whole bars of {BAR} steps, and whole octaves of "
            f"{OCTAVE} rows, at least two"
        )
