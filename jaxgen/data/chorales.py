"""The data set `chorales`: windows of Bach's four-part chorales as piano rolls."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int32, UInt8

from jaxgen.data import midi, roll, synthesis
from jaxgen.data.source import Examples, Shape, Source, checked
from jaxgen.data.tfds import records
from jaxgen.errors import UserError, check_field
from jaxgen.pictures import piano_roll
from jaxgen.typing import Example

NOTES = (
    "chorales: encodings of music21's corpus, whose licence may restrict commercial use (music21/corpus/license.txt)",
)
BROKEN = (200, 40, 40)  # RGB


class AsRolls:
    """What sources of rolls share: how a roll is drawn, and the files that are made of one; a `Portrayed` source."""

    def shows(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == 3 and shape[1] == roll.ROWS

    def picture(self, images: Float[np.ndarray, "n t 48 v"]) -> UInt8[np.ndarray, "n h w 3"]:
        """Draw each roll: time to the right, pitch upwards, a colour for each voice; red where one is not finite."""
        drawn = piano_roll.draw(*roll.decode(images), roll.LOWEST, roll.PITCHES, roll.STEPS)
        drawn[~np.isfinite(images).all((1, 2, 3))] = BROKEN
        return drawn

    def writers(self) -> Mapping[str, Callable[[Float[np.ndarray, "t 48 v"]], bytes]]:
        """Return what makes the bytes of a file of one roll, by suffix: .mid and .wav.

        Raises UserError where the package that writes MIDI is not installed.
        """
        midi.check()
        return {
            ".mid": lambda image: midi.encode(*roll.decode(image)),
            ".wav": lambda image: synthesis.wav(*roll.decode(image)),
        }


@dataclasses.dataclass(frozen=True)
class Chorales(AsRolls):
    """Windows of the chorales as rolls, `image` f32[16·bars 48 4] of -1 and 1: soprano, alto, tenor, bass.

    326 chorales in 4/4 of music21's corpus, on a grid of sixteenths; shorter notes are kept where they cover the start
    of a step. A window begins at each bar that is followed by `bars` - 1 whole ones, so that windows overlap; what a
    repeat splits and pick-ups are left out. What a row is, `data.roll` says. "train" and "test" share no chorale and no
    tune (`corpus.splits`).

    Prepared on first use, within a minute, from the installed package music21 (extra `music`). Its licence says that
    encodings may restrict commercial use. Raises DataNotFound where it is not installed, and UserError if the data
    cannot be written.
    """

    split: Literal["train", "test"] = "train"
    bars: int = 2
    """Length of a window."""

    def __post_init__(self) -> None:
        check_field(self, "bars", 1 <= self.bars <= 8, "from 1 to 8")

    def open(self) -> Examples:
        from jaxgen.data import builders  # imports TFDS, and a command that opens no data need not wait

        keys = {key: key for key in ("pitch", "onset", "bars")}
        pieces = records(builders.prepared(builders.ChoralesBuilder), self.split, keys, ())
        return checked(_Windows(pieces, self))

    def shape(self) -> Shape:
        return roll.STEPS * self.bars, roll.ROWS, roll.VOICES

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeRolls(steps=shape[0], size=count)


class _Windows:
    """The windows of the chorales, cut when they are read."""

    classes: tuple[str, ...] = ()
    notes = NOTES

    def __init__(self, chorales: Examples, source: Chorales):
        self.origin = f"chorales ({source.split})"
        self._length = roll.STEPS * source.bars
        self._places: list[tuple[Int32[np.ndarray, "t v"], Bool[np.ndarray, "t v"], int]] = []
        for piece in (chorales[i] for i in range(len(chorales))):
            begins = set(piece["bars"].tolist())
            for begin in piece["bars"].tolist():
                if all(begin + roll.STEPS * k in begins for k in range(source.bars)):
                    self._places.append((piece["pitch"], piece["onset"] > 0, begin))
        if not self._places:
            raise UserError(f"no chorale has {source.bars} whole bars in a row; take fewer")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        pitch, onset, begin = self._places[index]
        window = slice(begin, begin + self._length)
        # A note that sounds from before the window begins with it.
        return {"image": roll.encode(pitch[window], onset[window] | _first(self._length))}


def _first(steps: int) -> Bool[np.ndarray, "t 1"]:
    return (np.arange(steps) == 0)[:, None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FakeRolls(AsRolls):
    """Four voices of random quarters, `image` f32[steps 48 4]; example i is a function of (seed, i)."""

    steps: int = 32
    size: int = 256
    """Number of examples."""
    seed: int = 0

    def open(self) -> Examples:
        return _Random(self)

    def shape(self) -> Shape:
        return self.steps, roll.ROWS, roll.VOICES

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return dataclasses.replace(self, steps=shape[0], size=count)


class _Random:
    classes: tuple[str, ...] = ()

    def __init__(self, fake: FakeRolls):
        self._fake = fake

    def __len__(self) -> int:
        return self._fake.size

    def __getitem__(self, index: int) -> Example:
        fake = self._fake
        if not 0 <= index < fake.size:
            raise IndexError(index)
        beats = np.random.default_rng((fake.seed, index)).integers(
            roll.LOWEST, roll.LOWEST + roll.PITCHES, (-(-fake.steps // roll.QUARTER), roll.VOICES)
        )
        pitch = beats.repeat(roll.QUARTER, axis=0)[: fake.steps]
        onset = np.broadcast_to((np.arange(fake.steps) % roll.QUARTER == 0)[:, None], pitch.shape)
        return {"image": roll.encode(pitch, onset)}


@dataclasses.dataclass(frozen=True)
class Transpose:
    """Shift the pitches of a roll by up to `semitones` either way, as far as all voices stay within the rows.

    Every shift that is possible is equally likely.
    """

    semitones: int = 5

    def __post_init__(self) -> None:
        check_field(self, "semitones", 0 <= self.semitones < roll.PITCHES, f"from 0 to {roll.PITCHES - 1}")

    def __call__(self, rng: np.random.Generator, example: Example) -> Example:
        image = example["image"]
        used = np.flatnonzero((image[:, : roll.PITCHES] > 0).any((0, 2)))
        if not len(used):
            return example
        low, high = max(-self.semitones, -used[0]), min(self.semitones, roll.PITCHES - 1 - used[-1])
        return example | {"image": roll.transposed(image, int(rng.integers(low, high + 1)))}
