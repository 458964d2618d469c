"""Scores in MusicXML (w3.org/2021/06/musicxml40), read on a grid of sixteenths: the part of it that chorales need."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Bool, Int32

from jaxgen.data.roll import QUARTER, STEPS
from jaxgen.errors import UserError

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclasses.dataclass(frozen=True)
class Score:
    """A piece with one melody in each part."""

    title: str
    """"" where the file has none."""
    parts: tuple[str, ...]
    meters: frozenset[tuple[str, str]]
    """Every time signature: ("4", "4")."""
    pitch: Int32[np.ndarray, "t v"]
    """What sounds at each step in each part: a MIDI number, 60 = middle C, or 0 for a rest."""
    onset: Bool[np.ndarray, "t v"]
    """Whether a note begins there; a tied note goes on."""
    bars: Int32[np.ndarray, " n"]
    """The steps at which whole bars of 4/4 begin; not a pick-up, nor what a repeat splits."""


@dataclasses.dataclass(frozen=True)
class _Event:
    begin: int  # in divisions of a quarter
    end: int
    pitch: int
    tied: bool  # to the note before


def read(path: pathlib.Path) -> Score:
    """Read a compressed score, .mxl. Raises UserError for a file that is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [name for name in archive.namelist() if name.endswith((".xml", ".musicxml"))]
            name = next(name for name in inside if not name.startswith("META-INF"))
            root = ElementTree.fromstring(archive.read(name))
    except (OSError, zipfile.BadZipFile, StopIteration, ElementTree.ParseError) as error:
        raise UserError(f"{path} is no compressed MusicXML ({str(error) or 'it holds no score'})") from error
    read_parts = [_part(part) for part in root.iterfind("part")]
    end = min((_steps(measures[-1][1]) for _, measures in read_parts), default=0)
    columns = [_sounding(events, end) for events, _ in read_parts]
    blank = np.zeros((end, 0), np.int32)
    return Score(
        title=root.findtext("work/work-title") or root.findtext("movement-title") or "",
        parts=tuple(part.findtext("part-name", "") for part in root.iterfind("part-list/score-part")),
        meters=frozenset((t.findtext("beats", ""), t.findtext("beat-type", "")) for t in root.iter("time")),
        pitch=np.stack([pitch for pitch, _ in columns], 1) if columns else blank,
        onset=np.stack([onset for _, onset in columns], 1) if columns else blank.astype(bool),
        bars=_bars(read_parts[0][1]) if read_parts else blank[:, 0],
    )


# Positions are exact fractions of a quarter: divisions differ between files, and may change within one.
UNIT = 10080 * 4  # positions in a quarter: a multiple of all divisions that are found in the corpus

_Measures = list[tuple[int, int]]  # begin and end of each measure


def _part(part: ElementTree.Element) -> tuple[list[_Event], _Measures]:
    """Return the notes of a part in order of time, and its measures."""
    divisions, at = 1, 0
    events: list[_Event] = []
    measures: _Measures = []
    for measure in part.iterfind("measure"):
        begin = furthest = at
        for element in measure:
            divisions = int(element.findtext("divisions") or divisions) if element.tag == "attributes" else divisions
            length = round(float(element.findtext("duration") or 0) * UNIT / divisions)  # a grace note has none
            if element.tag == "backup":
                at -= length
            if element.tag == "forward" or (element.tag == "note" and element.find("chord") is None):
                events += _events(element, at, length)
                at += length
            furthest = max(furthest, at)
        at = furthest
        measures.append((begin, at))
    return sorted(events, key=lambda event: event.begin), measures


def _events(element: ElementTree.Element, at: int, length: int) -> Iterator[_Event]:
    pitch = element.find("pitch")
    if pitch is None or not length:
        return
    octave, alter = int(pitch.findtext("octave", "")), round(float(pitch.findtext("alter") or 0))
    number = 12 * (octave + 1) + _SEMITONES[pitch.findtext("step", "")] + alter
    tied = any(tie.get("type") == "stop" for tie in element.iterfind("tie"))
    yield _Event(at, at + length, number, tied)


def _sounding(events: list[_Event], end: int) -> tuple[Int32[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
    """Return what sounds at the beginning of each step; a note shorter than a step is kept where it covers one."""
    pitch, onset = np.zeros(end, np.int32), np.zeros(end, bool)
    for event in events:
        first, last = -(-event.begin * QUARTER // UNIT), min(-(-event.end * QUARTER // UNIT), end)
        if first >= last:
            continue
        joined = event.tied and first > 0 and pitch[first - 1] == event.pitch
        pitch[first:last] = event.pitch
        onset[first:last] = False
        onset[first] = not joined
    return pitch, onset


def _bars(measures: _Measures) -> Int32[np.ndarray, " n"]:
    whole = [_steps(begin) for begin, end in measures if end - begin == UNIT * STEPS // QUARTER]
    return np.array(whole, np.int32)


def _steps(position: int) -> int:
    return position * QUARTER // UNIT
