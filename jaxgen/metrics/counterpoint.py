"""What can be counted of music for several voices: pitches i[n t v] by sixteenths, and where notes begin, bool[n t v].

Pitches are MIDI numbers, 0 for a rest; the first voice is the highest.
"""

import itertools

import numpy as np
from jaxtyping import Bool, Float64, Int

Pitches = Int[np.ndarray, "n t v"]
Onsets = Bool[np.ndarray, "n t v"]
OtherPitches = Int[np.ndarray, "m s v"]  # of what the rows are compared with
OtherOnsets = Bool[np.ndarray, "m s v"]
Shares = Float64[np.ndarray, " k"]

BEAT, BAR = 4, 16  # steps
GRAM = 2 * BEAT  # steps of what may be copied
LEAP = 12  # semitones: wider intervals count as this one
# How well each degree fits a major key (Krumhansl and Kessler, Psychological Review 89, 1982).
MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
# Triads, seventh chords, and both without their fifth, in semitones above the root.
CHORDS = (
    (0, 4, 7), (0, 3, 7), (0, 3, 6), (0, 4, 7, 10), (0, 3, 7, 10), (0, 3, 6, 10), (0, 4, 7, 11), (0, 3, 6, 9),
    (0, 4), (0, 3), (0, 4, 10), (0, 3, 10), (0, 4, 11),
)  # fmt: skip
_SETS = {sum(1 << (root + step) % 12 for step in chord) for chord in CHORDS for root in range(12)}
_KNOWN = np.array([bits in _SETS for bits in range(1 << 12)])  # by the sum of 2^pitch class


def degrees(pitch: Pitches) -> Shares:
    """Return how long each pitch class sounds, as shares f64[12], counted from the major key that fits each row best.

    A piece in minor is counted from its relative major, so that the shares are the same in every key.
    """
    classes = (pitch[..., None] % 12 == np.arange(12)) & (pitch[..., None] > 0)
    sounding = classes.sum((1, 2)).astype(float)
    rotated = np.stack([np.roll(sounding, -key, axis=1) for key in range(12)], axis=1)
    best = rotated[np.arange(len(pitch)), (rotated @ MAJOR).argmax(1)]
    return _shares(best.sum(0))


def lengths(pitch: Pitches, onset: Onsets) -> Shares:
    """Return how often notes are 1, 2, … t steps long, as shares f64[t]."""
    notes, long, _ = _notes(pitch, onset)
    return _shares(np.bincount(long[notes > 0], minlength=pitch.shape[1] + 1)[1:])


def melody(pitch: Pitches, onset: Onsets) -> Shares:
    """Return how often a voice goes from note to note by -12 … 12 semitones, as shares f64[25]; not over a rest."""
    notes, _, rows = _notes(pitch, onset)
    joined = (notes[1:] > 0) & (notes[:-1] > 0) & (rows[1:] == rows[:-1])
    steps = np.clip(np.diff(notes)[joined], -LEAP, LEAP)
    return _shares(np.bincount(steps + LEAP, minlength=2 * LEAP + 1))


def distance(a: Shares, b: Shares) -> float:
    """Return the total variation distance of two distributions: 0 for equal ones, 1 for ones that share nothing."""
    return float(np.abs(a - b).sum() / 2)


def chords(pitch: Pitches) -> float | None:
    """Return the share of the beats at which all voices sound that are a triad or seventh chord, fifth or none.

    None, here and below, where there is nothing to take a share of.
    """
    beats = pitch[:, ::BEAT].reshape(-1, pitch.shape[2])
    beats = beats[(beats > 0).all(1)]
    return _mean(_KNOWN[np.bitwise_or.reduce(1 << beats % 12, axis=1)])


def parallels(pitch: Pitches) -> float:
    """Return how many parallel fifths, octaves and unisons there are in a bar.

    Two voices go from one of these intervals to the same one, at one step and in one direction.
    """
    before, after = pitch[:, :-1], pitch[:, 1:]
    move = np.where((before > 0) & (after > 0), np.sign(after - before), 0)
    count = 0
    for high, low in itertools.combinations(range(pitch.shape[2]), 2):
        interval = (pitch[..., high] - pitch[..., low]) % 12
        same = (interval[:, 1:] == interval[:, :-1]) & np.isin(interval[:, 1:], (0, 7))
        count += (same & (move[..., high] == move[..., low]) & (move[..., high] != 0)).sum()
    return float(count / (pitch.shape[0] * pitch.shape[1] / BAR))


def crossings(pitch: Pitches) -> float | None:
    """Return the share of the steps at which a voice lies below its lower neighbour, of those where both sound."""
    high, low = pitch[..., :-1], pitch[..., 1:]
    return _mean((high < low)[(high > 0) & (low > 0)])


def in_range(pitch: Pitches, reference: OtherPitches) -> float | None:
    """Return the share of what sounds that lies between the lowest and the highest note of its voice in others."""
    flat = reference.reshape(-1, reference.shape[2])
    low, high = np.where(flat > 0, flat, 1000).min(0), flat.max(0)
    return _mean(((pitch >= low) & (pitch <= high))[pitch > 0])


def copied(pitch: Pitches, onset: Onsets, pitches: OtherPitches, onsets: OtherOnsets) -> float | None:
    """Return the share of the rows' two beats of all voices that others, `pitches` and `onsets`, have note for note.

    They begin at any beat, and a transposition is a copy.
    """
    known = set(_grams(pitches, onsets))
    return _mean(np.array([gram in known for gram in _grams(pitch, onset)], bool))


def _grams(pitch: Int[np.ndarray, "k s v"], onset: Bool[np.ndarray, "k s v"]) -> list[bytes]:
    found: list[bytes] = []
    for begin in range(0, pitch.shape[1] - GRAM + 1, BEAT):
        notes, struck = pitch[:, begin : begin + GRAM], onset[:, begin : begin + GRAM].copy()
        struck[:, 0] = notes[:, 0] > 0  # whatever sounds there may have begun before
        flat = notes.reshape(len(notes), -1)
        first = flat[np.arange(len(flat)), (flat > 0).argmax(1)]
        relative = np.where(flat > 0, flat - first[:, None], -128).astype(np.int8)
        found += [row.tobytes() for row in np.concatenate([relative, struck.reshape(len(flat), -1)], axis=1)]
    return found


def _notes(pitch: Pitches, onset: Onsets) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return of each note or rest its pitch, 0 for a rest, its length, and the row and voice that it is in."""
    lines, struck = (x.transpose(0, 2, 1).reshape(-1, x.shape[1]) for x in (pitch, onset))
    begins = struck | np.diff(lines > 0, axis=1, prepend=False)
    begins[:, 0] = True
    places = np.flatnonzero(begins)
    return lines.ravel()[places], np.diff(places, append=lines.size), places // lines.shape[1]


def _shares(counts: np.ndarray) -> Shares:
    return counts / max(counts.sum(), 1)


def _mean(values: np.ndarray) -> float | None:
    """Return the mean, and None for none."""
    return float(values.mean()) if values.size else None
