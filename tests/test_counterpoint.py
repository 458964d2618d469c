"""What is counted of music has right answers in bars that are written by hand."""

import numpy as np
import pytest

from jaxgen.data import roll
from jaxgen.data.chorales import FakeRolls
from jaxgen.errors import UserError
from jaxgen.metrics import counterpoint
from jaxgen.metrics.music import NAMES, Music, independent, shuffled
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.view import Samples

C_MAJOR = (72, 67, 64, 48)  # C5 G4 E4 C3


def held(*chords: tuple[int, ...], steps: int = 16) -> np.ndarray:
    """One row, i[1 t v], of chords that share its steps."""
    return np.array(chords).repeat(steps // len(chords), axis=0)[None]


def onsets(pitch: np.ndarray) -> np.ndarray:
    return roll.begun(pitch, np.zeros(pitch.shape, bool))


@pytest.mark.parametrize(
    ("chord", "known"),
    [
        (C_MAJOR, True),
        ((69, 64, 60, 45), True),  # A minor
        ((74, 71, 65, 55), True),  # G7
        ((72, 71, 64, 48), True),  # C with a major seventh, no fifth
        ((72, 76, 72, 48), True),  # root and third
        ((72, 62, 61, 48), False),  # a cluster
        ((72, 68, 64, 48), False),  # augmented
    ],
)
def test_triads_and_seventh_chords_are_known(chord, known):
    assert counterpoint.chords(held(chord)) == float(known)


def test_harmony_counts_beats_at_which_all_voices_sound():
    cluster = (72, 62, 61, 48)
    assert counterpoint.chords(held(C_MAJOR, cluster, C_MAJOR, (0, 67, 64, 48))) == pytest.approx(2 / 3)
    assert counterpoint.chords(held((0, 0, 0, 0))) is None


def test_degrees_of_a_triad_are_three_and_the_same_in_every_key():
    shares = counterpoint.degrees(held(C_MAJOR))
    assert np.flatnonzero(shares).tolist() == [0, 4, 7]
    assert shares[0] == pytest.approx(0.5)  # C twice, E and G once
    for shift in range(-5, 6):
        np.testing.assert_allclose(counterpoint.degrees(held(C_MAJOR) + shift), shares)
    assert np.count_nonzero(counterpoint.degrees(held((60, 72, 84, 48)))) == 1  # octaves are one class


def test_a_note_over_the_bar_line_is_one_note():
    pitch = np.array([60] * 12 + [62] * 8 + [0] * 4 + [62] * 8)[None, :, None]
    lengths = counterpoint.lengths(pitch, onsets(pitch))
    assert len(lengths) == 32
    assert {n + 1: share for n, share in enumerate(lengths) if share} == {12: 1 / 3, 8: 2 / 3}
    melody = counterpoint.melody(pitch, onsets(pitch))
    assert melody[12 + 2] == 1.0  # up a tone once; over the rest is no step
    assert melody.sum() == 1.0


def test_leaps_beyond_an_octave_count_as_one():
    pitch = np.array([[48, 81, 48]]).repeat(4, 1)[..., None]
    melody = counterpoint.melody(pitch, onsets(pitch))
    assert melody[0] == melody[-1] == 0.5


@pytest.mark.parametrize(
    ("chords", "count"),
    [
        (((67, 60), (69, 62)), 1),  # fifths, up together
        (((72, 60), (74, 62)), 1),  # octaves
        (((60, 60), (62, 62)), 1),  # unisons
        (((79, 60), (81, 62)), 1),  # a fifth and an octave are a fifth
        (((67, 60), (67, 60)), 0),  # nothing moves
        (((67, 60), (57, 62)), 0),  # from a fifth to a fifth below, crossing
        (((64, 60), (65, 62)), 0),  # thirds
        (((67, 60), (0, 62)), 0),
        (((72, 60), (62, 62)), 0),  # octave to unison by contrary motion
    ],
)
def test_parallels_are_found(chords, count):
    assert counterpoint.parallels(held(*chords)) == count


def test_parallels_are_per_bar_and_of_all_pairs():
    moved = held((72, 67, 60, 48), (74, 69, 62, 50), steps=32)  # C-C, C-C, C-C, and G over each lower C
    assert counterpoint.parallels(moved) == (3 + 2) / 2


def test_crossings_and_ranges():
    pitch = held((72, 67, 64, 48), (60, 67, 64, 48), (0, 67, 64, 48), (72, 67, 64, 65))
    assert counterpoint.crossings(pitch) == pytest.approx(2 / 11)
    assert counterpoint.in_range(pitch, held((72, 67, 64, 48))) == pytest.approx(13 / 15)
    assert counterpoint.in_range(pitch, pitch) == 1.0


def test_a_transposed_copy_is_a_copy_and_another_rhythm_is_none():
    rng = np.random.default_rng(0)
    known = rng.integers(40, 70, (5, 8, 4)).repeat(4, axis=1)
    own = onsets(known)
    assert counterpoint.copied(known, own, known, own) == 1.0
    assert counterpoint.copied(known + 3, own, known, own) == 1.0
    later = np.roll(known, 4, axis=1)  # by a beat: all that does not go over the seam
    assert counterpoint.copied(later, onsets(later), known, own) == pytest.approx(6 / 7)
    other = known.copy()
    other[:, 4:, 2] += 1
    assert counterpoint.copied(other, onsets(other), known, own) < 0.2
    struck = own | (np.arange(32) % 2 == 0)[None, :, None]
    assert counterpoint.copied(known, struck, known, own) == 0.0


def test_distances_are_from_0_to_1():
    a, b = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.5, 0.5])
    assert counterpoint.distance(a, a) == 0.0
    assert counterpoint.distance(a, b) == 0.5
    assert counterpoint.distance(np.eye(3)[0], np.eye(3)[1]) == 1.0


def test_controls_keep_what_they_say():
    rng = np.random.default_rng(0)
    pitch = rng.integers(40, 70, (6, 8, 4)).repeat(4, axis=1)
    bars = {bar.tobytes() for bar in pitch.reshape(-1, 16, 4)}
    mixed, onset = shuffled(pitch, onsets(pitch), rng)
    assert {bar.tobytes() for bar in mixed.reshape(-1, 16, 4)} == bars
    assert (mixed != pitch).any()
    assert (onset >= onsets(mixed)).all()  # a note that began a bar is struck there still
    apart, _ = independent(pitch, onsets(pitch), rng)
    for voice in range(4):
        assert sorted(map(bytes, apart[..., voice])) == sorted(map(bytes, pitch[..., voice]))
    np.testing.assert_allclose(counterpoint.lengths(apart, onsets(apart)), counterpoint.lengths(pitch, onsets(pitch)))


class _View:
    """Chorales of one chord a beat in two splits, and samples of random notes."""

    def __init__(self):
        self.classes, self.protocol = (), {"seed": 0}

    def rows(self, split):
        rng = np.random.default_rng(len(split))
        shifts = rng.integers(-5, 6, (20, 8, 1))
        pitch = (np.array(C_MAJOR) + shifts).repeat(4, axis=1)
        return Samples(roll.encode(pitch, onsets(pitch)), None)

    def samples(self, n, like=None):
        made = FakeRolls(size=n).open()
        return Samples(np.stack([made[i]["image"] for i in range(n)]), None)

    def map(self, f, images):
        raise NotImplementedError

    def log_likelihood(self, images, label, *, steps, sigma_min, sigma_max, probes):
        raise NotImplementedError


def test_noise_scores_below_every_control_that_is_music():
    found = Music(samples=30).measure(_View())
    protocol = found.pop("protocol")
    assert protocol == {"seed": 0, "music": {"samples": 30, "reference": "train", "reference_samples": 20, "test": 20}}
    suffixes = ("", "_floor", "_shuffled", "_independent")
    assert found.keys() == {f"{name}{suffix}" for name in NAMES for suffix in suffixes}
    assert found["chords_floor"] == found["chords_shuffled"] == 1.0
    assert found["chords"] < found["chords_independent"] + 0.5 < 1.5
    assert found["chords_independent"] < 0.7
    assert found["melodic_distance"] > 3 * found["melodic_distance_floor"]
    assert found["in_range"] < found["in_range_floor"]
    assert found["crossings"] > 0.3
    assert found["crossings_floor"] == 0.0
    assert found["copied"] == 0.0
    assert found["parallels_per_bar_floor"] > 3 > found["parallels_per_bar"]  # one chord that moves as a whole


def test_what_is_no_roll_is_refused_before_the_training():
    def seen(shape):
        return Outlook((), shape, {"train": 9, "test": 9}, asked_for_class=False, has_density=False, model="Gan")

    assert set(Music().check(seen((32, 48, 4)))) == set(NAMES)
    for shape in ((32, 32, 3), (24, 48, 4), (2,)):
        with pytest.raises(UserError, match="whole bars"):
            Music().check(seen(shape))
    with pytest.raises(UserError, match=r"Music.samples is 0"):
        Music(samples=0)
