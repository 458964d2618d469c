"""How near samples of music for several voices are to real music, by what a teacher of counterpoint would count."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from jaxgen.data import roll
from jaxgen.errors import UserError, check_field
from jaxgen.metrics import counterpoint
from jaxgen.metrics.counterpoint import Onsets, OtherOnsets, OtherPitches, Pitches
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.view import View, finite

NAMES = (
    "pitch_class_distance", "note_length_distance", "melodic_distance", "chords", "parallels_per_bar", "crossings",
    "in_range", "copied",
)  # fmt: skip

Voices = tuple[Pitches, Onsets]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Music:
    """Statistics of rolls (`data.roll`) against those of the training data, each with three controls.

    `pitch_class_distance` (pitch classes by duration, counted from each roll's key), `note_length_distance` and
    `melodic_distance` (intervals from note to note) are total variation distances to the training data's distribution.
    `chords` is the share of the beats that are a triad or seventh chord, `parallels_per_bar` counts parallel fifths,
    octaves and unisons, `crossings` is the share of the steps at which neighbouring voices cross, `in_range` the share
    of what sounds that lies in its voice's range in training, and `copied` the share of all stretches of two beats that
    training has note for note, up to transposition. See `metrics.counterpoint`.

    `…_floor` is what the real test data score, `…_shuffled` their bars in another order, and `…_independent` voices
    each from another piece: melodies, rhythms and ranges are right there, and nothing fits together.
    """

    samples: int = 512

    def __post_init__(self) -> None:
        check_field(self, "samples", self.samples >= 1, "at least 1")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers. Raises UserError for samples that are no rolls of whole bars."""
        _check_shape(outlook.shape)
        return NAMES

    def measure(self, view: View) -> dict[str, Any]:
        """Return the numbers by name.

        Raises UserError for samples that are no rolls of whole bars, or not finite.
        """
        made = finite(view.samples(self.samples)).image
        _check_shape(made.shape[1:])
        train, test = (roll.decode(view.rows(split).image) for split in ("train", "test"))
        rows = {
            "": roll.decode(made),
            "_floor": test,
            "_shuffled": shuffled(*test, np.random.default_rng(0)),
            "_independent": independent(*test, np.random.default_rng(0)),
        }
        found = {suffix: _measured(each, train) for suffix, each in rows.items()}
        numbers = {f"{name}{suffix}": values[name] for name in NAMES for suffix, values in found.items()}
        how = {"samples": len(made), "reference": "train", "reference_samples": len(train[0]), "test": len(test[0])}
        return numbers | {"protocol": view.protocol | {"music": how}}


def shuffled(pitch: Pitches, onset: Onsets, rng: np.random.Generator) -> Voices:
    """Return the rows with all their bars in another order, also from row to row."""
    order = rng.permutation(pitch.shape[0] * pitch.shape[1] // roll.STEPS)
    pitch, onset = (x.reshape(-1, roll.STEPS, x.shape[2])[order].reshape(x.shape) for x in (pitch, onset))
    return pitch, roll.begun(pitch, onset)


def independent(pitch: Pitches, onset: Onsets, rng: np.random.Generator) -> Voices:
    """Return rows whose voices are each from another row, drawn without replacement."""
    orders = [rng.permutation(len(pitch)) for _ in range(pitch.shape[2])]
    pitch, onset = (np.stack([x[order, :, v] for v, order in enumerate(orders)], axis=2) for x in (pitch, onset))
    return pitch, onset


def _measured(rows: Voices, train: tuple[OtherPitches, OtherOnsets]) -> dict[str, float | None]:
    pitch, _ = rows
    return {
        "pitch_class_distance": counterpoint.distance(counterpoint.degrees(pitch), counterpoint.degrees(train[0])),
        "note_length_distance": counterpoint.distance(counterpoint.lengths(*rows), counterpoint.lengths(*train)),
        "melodic_distance": counterpoint.distance(counterpoint.melody(*rows), counterpoint.melody(*train)),
        "chords": counterpoint.chords(pitch),
        "parallels_per_bar": counterpoint.parallels(pitch),
        "crossings": counterpoint.crossings(pitch),
        "in_range": counterpoint.in_range(pitch, train[0]),
        "copied": counterpoint.copied(*rows, *train),
    }


def _check_shape(shape: tuple[int, ...]) -> None:
    if len(shape) != 3 or shape[1] != roll.ROWS or shape[0] % roll.STEPS:
        raise UserError(
            f"Music: samples have the shape {'×'.join(map(str, shape))}; rolls have whole bars of {roll.STEPS} steps "
            f"× {roll.ROWS} rows × voices"
        )
