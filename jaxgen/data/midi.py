"""Standard MIDI files of a few voices, a track for each; written and read by mido, which is imported here alone."""

import importlib.util
import io

import numpy as np
from jaxtyping import Bool, Int, Int32

from jaxgen.data.roll import NAMES, QUARTER, TEMPO, VOICES, Note, notes, of_notes
from jaxgen.errors import UserError

TICKS = 480  # in a quarter
STEP = TICKS // QUARTER
ORGAN = 19  # General MIDI's church organ
VELOCITY = 80


def check() -> None:
    """Raise UserError where mido is not installed."""
    if importlib.util.find_spec("mido") is None:
        raise UserError(
            "MIDI files are written by the package mido, which is not installed; "
            "add --extra music after `uv run`, or pip install mido"
        )


def encode(pitch: Int[np.ndarray, "t v"], onset: Bool[np.ndarray, "t v"]) -> bytes:
    """Return a file of MIDI numbers, 0 for a rest, and of where notes begin, at sixteenths.

    Raises UserError where mido is not installed.
    """
    check()
    import mido

    steps, voices = pitch.shape
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS)
    head = [
        mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(TEMPO)),
        mido.MetaMessage("time_signature", numerator=4, denominator=4),
    ]
    file.tracks.append(mido.MidiTrack([*head, mido.MetaMessage("end_of_track", time=steps * STEP)]))
    for voice in range(voices):
        name = NAMES[voice] if voices == VOICES else f"voice {voice + 1}"
        track = mido.MidiTrack(
            [
                mido.MetaMessage("track_name", name=name),
                mido.Message("program_change", channel=voice, program=ORGAN),
            ]
        )
        at = 0
        for note in (note for note in notes(pitch, onset) if note.voice == voice):
            wait = (note.begin - at) * STEP
            track.append(mido.Message("note_on", channel=voice, note=note.pitch, velocity=VELOCITY, time=wait))
            track.append(mido.Message("note_off", channel=voice, note=note.pitch, time=note.length * STEP))
            at = note.begin + note.length
        track.append(mido.MetaMessage("end_of_track", time=(steps - at) * STEP))
        file.tracks.append(track)
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def decode(data: bytes) -> tuple[Int32[np.ndarray, "t v"], Bool[np.ndarray, "t v"]]:
    """Return the MIDI numbers, 0 for a rest, and where notes begin, of a file that `encode` wrote.

    Raises UserError where mido is not installed, and for a file whose notes lie beside its sixteenths.
    """
    check()
    import mido

    file = mido.MidiFile(file=io.BytesIO(data))
    step = file.ticks_per_beat / QUARTER
    found, longest = [], 0.0
    for voice, track in enumerate(file.tracks[1:]):
        at, begin = 0.0, 0.0
        for message in track:
            at += message.time / step
            if message.type == "note_on" and message.velocity:
                begin = at
            elif message.type in ("note_on", "note_off"):
                found.append((voice, message.note, begin, at - begin))
        longest = max(longest, at)
    if any(x % 1 for _, *numbers in found for x in numbers):
        raise UserError("the MIDI file has notes that begin or end beside its sixteenths")
    return of_notes([Note(*map(int, each)) for each in found], int(longest), len(file.tracks) - 1)
