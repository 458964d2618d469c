"""The four-part chorales in 4/4 of music21's corpus, read from the installed package, and how they are split."""

import importlib.util
import pathlib
import sys
from collections.abc import Mapping

import numpy as np

from jaxgen.data import music_xml
from jaxgen.data.music_xml import Score
from jaxgen.data.roll import NAMES, QUARTER, STEPS
from jaxgen.errors import DataNotFound
from jaxgen.progress import Line

METER = frozenset({("4", "4")})
TUNE = 4 * STEPS  # steps of melody that two pieces share if they set one tune
TEST = 0.15  # least share of the bars to test


def folder() -> pathlib.Path:
    """Return where the chorales lie. Raises DataNotFound where music21 is not installed."""
    found = importlib.util.find_spec("music21")  # which finds the package without importing it
    places = None if found is None else found.submodule_search_locations
    if not places:
        raise DataNotFound(
            "the data set `chorales` is read from the package music21, which is not installed; "
            "add --extra music after `uv run`, or pip install music21"
        )
    return pathlib.Path(places[0]) / "corpus" / "bach"


def scores() -> dict[str, Score]:
    """Return the chorales for four voices that stay in 4/4, by the names of their files: "bwv66.6"."""
    found = {}
    paths = sorted(folder().glob("*.mxl"))
    with Line(sys.stderr) as line:
        for i, path in enumerate(paths):
            line.hear("chorales", i, len(paths))
            score = music_xml.read(path)
            if tuple(name.lower() for name in score.parts) == NAMES and score.meters == METER:
                found[path.stem] = score
    return found


def splits(scores: Mapping[str, Score]) -> dict[str, list[str]]:
    """Return the names of the chorales to train on and to test on: no tune is in both.

    Pieces whose sopranos share four bars, by the pitches on the beats up to transposition, set one tune: Bach wrote
    several of many.
    """
    tunes = _tunes(scores)
    wanted = TEST * sum(len(score.bars) for score in scores.values())
    test: list[str] = []
    for i in np.random.default_rng(0).permutation(len(tunes)).tolist():
        if sum(len(scores[name].bars) for name in test) >= wanted:
            break
        test += tunes[i]
    return {"train": [name for name in scores if name not in test], "test": [name for name in scores if name in test]}


def _tunes(scores: Mapping[str, Score]) -> list[list[str]]:
    """Return the names in groups of one tune."""
    group = {name: [name] for name in scores}
    first: dict[bytes, str] = {}
    for name, score in scores.items():
        for bar in score.bars.tolist():
            melody = score.pitch[bar : bar + TUNE : QUARTER, 0]
            if len(melody) < TUNE // QUARTER or not melody.all():  # near the end, or with a rest
                continue
            other = first.setdefault((melody - melody[0]).tobytes(), name)
            if group[other] is not group[name]:
                group[other] += group[name]
                for member in group[name]:
                    group[member] = group[other]
    return list({id(members): members for members in group.values()}.values())
