"""Piano rolls as pictures: time to the right, pitch upwards, a colour for each voice."""

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image, ImageDraw

from jaxgen.pictures import text

CELL, SEMITONE = 8, 6  # pixels of a step and of a semitone
LEFT = 22  # pixels for the names of octaves
PAPER, BLACK_KEYS, BAR, BEAT, GREY = (255, 255, 255), (241, 241, 244), (120, 120, 130), (222, 222, 228), (110, 110, 120)
# Soprano, alto, tenor, bass: hues far apart and of different lightness, also for eyes that confuse red and green.
COLOURS = ((214, 69, 65), (236, 160, 47), (52, 140, 180), (62, 66, 122))


def draw(
    pitch: Int[np.ndarray, "n t v"], onset: Bool[np.ndarray, "n t v"], lowest: int, pitches: int, bar: int
) -> UInt8[np.ndarray, "n h w 3"]:
    """Draw pitches, as MIDI numbers or 0 for a rest, and where notes begin: `pitches` semitones from `lowest` up.

    `bar` is the number of steps from one bar line to the next; a beat is a quarter of it. Voices above the first four
    take their colours in turn. Where voices sound the same, the earlier one is narrower and lies on the others.
    """
    return np.stack([_one(*each, lowest, pitches, bar) for each in zip(pitch, onset, strict=True)])


def _one(
    pitch: Int[np.ndarray, "t v"], onset: Bool[np.ndarray, "t v"], lowest: int, pitches: int, bar: int
) -> UInt8[np.ndarray, "h w 3"]:
    steps, voices = pitch.shape
    width, height = LEFT + steps * CELL + 1, pitches * SEMITONE + 1
    page = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(page)
    top = [height - 1 - (row + 1) * SEMITONE for row in range(pitches)]
    for row in range(pitches):
        if (lowest + row) % 12 in (1, 3, 6, 8, 10):
            pen.rectangle((LEFT, top[row], width, top[row] + SEMITONE - 1), BLACK_KEYS)
    for step in range(0, steps + 1, max(bar // 4, 1)):
        x = LEFT + step * CELL
        pen.line((x, 0, x, height), BAR if step % bar == 0 else BEAT)
    for row in range(pitches):
        if (lowest + row) % 12 == 0:
            y = top[row] + SEMITONE
            pen.line((LEFT, y, width, y), BEAT)
            text.write(pen, (2, min(y - 11, height - 13)), f"C{(lowest + row) // 12 - 1}", GREY, 10)
    for voice in reversed(range(voices)):
        for begin in np.flatnonzero(onset[:, voice]).tolist():
            later = np.flatnonzero(onset[begin + 1 :, voice] | (pitch[begin + 1 :, voice] != pitch[begin, voice]))
            end = begin + 1 + int(later[0]) if len(later) else steps
            row = int(pitch[begin, voice]) - lowest
            inset = int(
                any((pitch[begin:end, other] == pitch[begin, voice]).any() for other in range(voice + 1, voices))
            )
            x0, x1 = LEFT + begin * CELL + 1, LEFT + end * CELL - 1
            box = (x0, top[row] + 2 * inset, x1, top[row] + SEMITONE - 1 - 2 * inset)
            pen.rounded_rectangle(box, radius=2 * (1 - inset), fill=COLOURS[voice % len(COLOURS)])
    return np.asarray(page)
