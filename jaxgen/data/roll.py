"""Piano rolls of a few voices: the image f32[t 48 4] that nets see, and the pitches and onsets that it stands for.

Rows 0..45 of a voice are the pitches from C2 (MIDI 36) to A5 (81), row 46 is its rest: at each step exactly one of the
47 is 1, the others are -1. Row 47 is 1 where a note begins and -1 elsewhere.

What sounds together stands in one row of the image, as long as it sounds: harmony and voice leading are local, as
convolutions need it, where symbols for "hold" would show a chord only at the moment it is struck. That each voice has
one symbol at each step makes every roll singable, and one more bit tells a repeated note from a long one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

LOWEST, PITCHES, VOICES = 36, 46, 4
REST, ONSET, ROWS = PITCHES, PITCHES + 1, PITCHES + 2
STEPS, QUARTER = 16, 4  # in a bar of 4/4, and in a quarter
TEMPO = 66  # quarters a minute, of what is heard
NAMES = ("soprano", "alto", "tenor", "bass")


class Note(NamedTuple):
    """A note of one voice."""

    voice: int
    pitch: int
    """MIDI number."""
    begin: int
    """In steps."""
    length: int


def encode(pitch: Int[np.ndarray, "*b t v"], onset: Bool[np.ndarray, "*b t v"]) -> Float32[np.ndarray, "*b t 48 v"]:
    """Return the roll of MIDI numbers, 0 for a rest, and of where notes begin.

    Raises ValueError for a pitch out of range.
    """
    rows = np.where(pitch > 0, pitch - LOWEST, REST)
    if rows.size and (rows.min() < 0 or ((rows >= PITCHES) & (pitch > 0)).any()):
        raise ValueError(f"pitches lie in {LOWEST}..{LOWEST + PITCHES - 1}; these in {pitch.min()}..{pitch.max()}")
    sounding = np.arange(REST + 1)[:, None] == rows[..., None, :]
    both = np.concatenate([sounding, (onset & (pitch > 0))[..., None, :]], axis=-2)
    return np.where(both, np.float32(1), np.float32(-1))


def decode(roll: Float[np.ndarray, "*b t 48 v"]) -> tuple[Int32[np.ndarray, "*b t v"], Bool[np.ndarray, "*b t v"]]:
    """Return the MIDI numbers, 0 for a rest, and where notes begin, of any values: the likeliest symbol counts.

    A note begins where its pitch is new, at the first step, or where the onset's value lies above 0.
    """
    rows = roll[..., : REST + 1, :].argmax(-2)
    pitch = np.where(rows == REST, 0, rows + LOWEST).astype(np.int32)
    return pitch, begun(pitch, roll[..., ONSET, :] > 0)


def begun(pitch: Int[np.ndarray, "*b t v"], struck: Bool[np.ndarray, "*b t v"]) -> Bool[np.ndarray, "*b t v"]:
    """Return where notes begin: where their pitch is new, and where a note of the same pitch is struck again."""
    before = np.concatenate([np.zeros_like(pitch[..., :1, :]), pitch[..., :-1, :]], axis=-2)
    return (pitch > 0) & ((pitch != before) | struck)


def transposed(roll: Float[np.ndarray, "*b t 48 v"], shift: int) -> Float32[np.ndarray, "*b t 48 v"]:
    """Shift all pitches up by so many semitones, or down; what leaves the rows is lost."""
    out = np.array(roll, np.float32)
    pitches = np.moveaxis(out[..., :PITCHES, :], -2, 0)
    pitches[:] = np.roll(pitches, shift, axis=0)
    pitches[: max(shift, 0)] = -1
    pitches[PITCHES + min(shift, 0) :] = -1
    return out


def notes(pitch: Int[np.ndarray, "t v"], onset: Bool[np.ndarray, "t v"]) -> list[Note]:
    """Return the notes, voice by voice in order of time; one goes on until the next, or until a rest."""
    found = []
    for voice in range(pitch.shape[1]):
        for begin in np.flatnonzero(onset[:, voice]):
            ends = np.flatnonzero((onset[begin + 1 :, voice]) | (pitch[begin + 1 :, voice] == 0))
            length = int(ends[0]) + 1 if len(ends) else len(pitch) - int(begin)
            found.append(Note(voice, int(pitch[begin, voice]), int(begin), length))
    return found


def of_notes(
    notes: list[Note], steps: int, voices: int = VOICES
) -> tuple[Int32[np.ndarray, "t v"], Bool[np.ndarray, "t v"]]:
    """Return MIDI numbers, 0 for a rest, and where notes begin, of notes that lie within so many steps."""
    pitch, onset = np.zeros((steps, voices), np.int32), np.zeros((steps, voices), bool)
    for note in notes:
        pitch[note.begin : note.begin + note.length, note.voice] = note.pitch
        onset[note.begin, note.voice] = True
    return pitch, onset
