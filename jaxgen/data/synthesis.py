"""Notes made audible by adding up sines: the sound of a plain organ, as a .wav file."""

import io
import wave

import numpy as np
from jaxtyping import Bool, Float32, Int

from jaxgen.data.roll import QUARTER, TEMPO, Note, notes

RATE = 22_050  # samples a second
PARTIALS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.08, 0.05, 0.04)  # amplitude of each multiple of the fundamental
ATTACK, RELEASE = 0.03, 0.15  # seconds
PEAK = 0.8  # of full scale
STEP = 60 / TEMPO / QUARTER  # seconds


def wav(pitch: Int[np.ndarray, "t v"], onset: Bool[np.ndarray, "t v"]) -> bytes:
    """Return a file of 16 bits, one channel, of MIDI numbers, 0 for a rest, and of where notes begin."""
    samples = np.round(waveform(pitch, onset) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def waveform(pitch: Int[np.ndarray, "t v"], onset: Bool[np.ndarray, "t v"]) -> Float32[np.ndarray, " n"]:
    """Return what sounds, in [-1, 1]; silence where nothing does."""
    out = np.zeros(round((len(pitch) * STEP + RELEASE) * RATE), np.float32)
    for note in notes(pitch, onset):
        begin, sound = round(note.begin * STEP * RATE), _tone(note)
        out[begin : begin + len(sound)] += sound[: len(out) - begin]
    loudest = float(np.abs(out).max(initial=0))
    return out * np.float32(PEAK / loudest) if loudest else out


def frequency(pitch: int) -> float:
    """Return the cycles a second of a MIDI number, in equal temperament: 69 is 440 Hz."""
    return 440.0 * 2 ** ((pitch - 69) / 12)


def _tone(note: Note) -> Float32[np.ndarray, " n"]:
    held = note.length * STEP
    seconds = np.arange(round((held + RELEASE) * RATE)) / RATE
    base = frequency(note.pitch)
    wave = sum(a * np.sin(2 * np.pi * k * base * seconds) for k, a in enumerate(PARTIALS, 1) if k * base < RATE / 2)
    envelope = np.minimum(seconds / ATTACK, 1) * np.clip(1 - (seconds - held) / RELEASE, 0, 1)
    return (wave * envelope).astype(np.float32)
