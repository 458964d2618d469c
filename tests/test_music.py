"""Music: rolls and what they stand for, scores that are read, files that are written, and the data set `chorales`."""

import importlib.util
import io
import pathlib
import wave
import zipfile

import numpy as np
import pytest

from jaxgen.data import corpus, midi, music_xml, roll, synthesis
from jaxgen.data.chorales import BROKEN, Chorales, FakeRolls, Transpose
from jaxgen.data.source import Portrayed, portrayed
from jaxgen.errors import DataNotFound, UserError
from jaxgen.pictures import piano_roll

HIGHEST = roll.LOWEST + roll.PITCHES - 1


def random_music(seed: int, steps: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Four voices of random notes and rests, some of them struck again on the same pitch."""
    rng = np.random.default_rng(seed)
    pitch = rng.choice([0, 36, 48, 60, 61, 72, 81], (steps, 4)).repeat(rng.integers(1, 4), axis=0)[:steps]
    return pitch, roll.begun(pitch, rng.random(pitch.shape) < 0.2)


# --- rolls ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_roll_is_the_music_that_it_was_made_of(seed):
    pitch, onset = random_music(seed)
    made = roll.encode(pitch, onset)
    assert made.shape == (32, 48, 4)
    assert made.dtype == np.float32
    assert set(np.unique(made)) == {-1.0, 1.0}
    assert ((made[:, : roll.REST + 1] > 0).sum(1) == 1).all()
    again = roll.decode(made)
    np.testing.assert_array_equal(again[0], pitch)
    np.testing.assert_array_equal(again[1], onset)


def test_a_repeated_note_is_no_long_one():
    pitch = np.full((8, 1), 60)
    held = np.arange(8)[:, None] == 0
    twice = held | (np.arange(8)[:, None] == 4)
    assert roll.notes(pitch, held) == [roll.Note(0, 60, 0, 8)]
    assert roll.notes(pitch, twice) == [roll.Note(0, 60, 0, 4), roll.Note(0, 60, 4, 4)]
    differ = roll.encode(pitch, held) != roll.encode(pitch, twice)
    assert np.argwhere(differ).tolist() == [[4, roll.ONSET, 0]]


def test_any_values_are_music():
    values = np.random.default_rng(0).normal(size=(3, 16, 48, 4)).astype(np.float32)
    pitch, onset = roll.decode(values)
    assert ((pitch == 0) | ((pitch >= roll.LOWEST) & (pitch <= HIGHEST))).all()
    assert not (onset & (pitch == 0)).any()
    assert (onset[:, 0] == (pitch[:, 0] > 0)).all()
    canonical = roll.encode(pitch, onset)
    np.testing.assert_array_equal(roll.encode(*roll.decode(canonical)), canonical)


@pytest.mark.parametrize("wrong", [roll.LOWEST - 1, HIGHEST + 1])
def test_what_has_no_row_is_refused(wrong):
    with pytest.raises(ValueError, match=r"36\.\.81"):
        roll.encode(np.full((1, 4), wrong), np.ones((1, 4), bool))


def test_transposition_keeps_intervals_and_the_range():
    pitch = np.array([[79, 60, 55, 38]]).repeat(4, 0)  # from the lowest by 2, to the highest by 2
    pitch[2] = 0
    image = roll.encode(pitch, roll.begun(pitch, np.zeros(pitch.shape, bool)))
    shifts = set()
    for seed in range(40):
        made = Transpose(semitones=5)(np.random.default_rng(seed), {"image": image})["image"]
        moved, onset = roll.decode(made)
        np.testing.assert_array_equal(made, roll.encode(moved, onset))
        (shift,) = set((moved - pitch)[pitch > 0].tolist())
        assert (moved[pitch == 0] == 0).all()
        shifts.add(shift)
    assert shifts == {-2, -1, 0, 1, 2}
    silent = roll.encode(np.zeros((4, 4), int), np.zeros((4, 4), bool))
    assert Transpose()(np.random.default_rng(0), {"image": silent})["image"] is silent


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_midi_there_and_back_is_the_same_to_the_bit(seed):
    pitch, onset = random_music(seed)
    pitch[-3:], onset[-3:] = 0, False  # what is silent at the end counts too
    again = midi.decode(midi.encode(pitch, onset))
    np.testing.assert_array_equal(roll.encode(*again), roll.encode(pitch, onset))


def test_midi_has_a_named_track_for_each_voice():
    mido = pytest.importorskip("mido")
    file = mido.MidiFile(file=io.BytesIO(midi.encode(*random_music(0))))
    assert [track.name for track in file.tracks[1:]] == list(roll.NAMES)
    assert file.length == pytest.approx(8 * 60 / roll.TEMPO, rel=1e-3)


def test_midi_beside_the_grid_is_refused():
    mido = pytest.importorskip("mido")
    notes = [mido.Message("note_on", note=60, time=7), mido.Message("note_off", note=60, time=100)]
    file = mido.MidiFile(tracks=[mido.MidiTrack(), mido.MidiTrack(notes)], ticks_per_beat=480)
    buffer = io.BytesIO()
    file.save(file=buffer)
    with pytest.raises(UserError, match="beside its sixteenths"):
        midi.decode(buffer.getvalue())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mido.*--extra music"):
        Chorales().writers()
    with pytest.raises(DataNotFound, match=r"music21.*--extra music"):
        corpus.folder()


def test_a_wav_sounds_at_the_notes_frequency():
    pitch = np.array([69, 69, 69, 69, 0, 0, 0, 0])[:, None]
    data = synthesis.wav(pitch, roll.begun(pitch, np.zeros(pitch.shape, bool)))
    with wave.open(io.BytesIO(data)) as file:
        rate, count = file.getframerate(), file.getnframes()
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        samples = np.frombuffer(file.readframes(count), "<i2") / 32768
    assert count / rate == pytest.approx(8 * synthesis.STEP + synthesis.RELEASE, abs=1e-3)
    sounding = samples[: round(4 * synthesis.STEP * rate)]
    assert np.abs(np.fft.rfft(sounding)).argmax() * rate / len(sounding) == pytest.approx(440, abs=3)
    assert 0.7 < np.abs(samples).max() < 0.9
    assert not samples[round((4 * synthesis.STEP + synthesis.RELEASE) * rate) + 1 :].any()
    assert not synthesis.waveform(0 * pitch, pitch < 0).any()


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_shows_each_voice_in_its_colour_where_it_sounds():
    pitch = np.zeros((16, 4), int)
    pitch[4:8] = [72, 67, 60, 48]
    pixels = Chorales().picture(roll.encode(pitch, roll.begun(pitch, pitch < 0))[None])[0]
    height, width, _ = pixels.shape
    assert (height, width) == (46 * piano_roll.SEMITONE + 1, piano_roll.LEFT + 16 * piano_roll.CELL + 1)
    for voice, number in enumerate(pitch[4]):
        y = round(height - 1 - (number - roll.LOWEST + 0.5) * piano_roll.SEMITONE)
        inside = pixels[y, piano_roll.LEFT + 4 * piano_roll.CELL + 2 : piano_roll.LEFT + 8 * piano_roll.CELL - 2]
        assert (inside == piano_roll.COLOURS[voice]).all()
        assert (pixels[y, piano_roll.LEFT + 8 * piano_roll.CELL + 2] != piano_roll.COLOURS[voice]).any()


def test_what_is_not_finite_is_red():
    images = np.stack([roll.encode(*random_music(0))] * 2)
    images[1, 3, 5, 0] = np.nan
    fine, broken = Chorales().picture(images)
    assert (broken == BROKEN).all()
    assert not (fine == BROKEN).all()


def test_rolls_are_drawn_by_their_source_and_pictures_are_not():
    assert isinstance(Chorales(), Portrayed)
    assert portrayed(FakeRolls(), (64, 48, 4)) is not None
    assert portrayed(FakeRolls(), (32, 32, 3)) is None


# --- scores -----------------------------------------------------------------------------------------------------------

Notes = list[tuple[int, float] | tuple[int, float, str]]  # MIDI number or 0, quarters, "stop" of a tie
SHARP = {1: ("C", 1), 3: ("D", 1), 6: ("F", 1), 8: ("G", 1), 10: ("A", 1)}
PLAIN = {0: "C", 2: "D", 4: "E", 5: "F", 7: "G", 9: "A", 11: "B"}


def mxl(path: pathlib.Path, parts: dict[str, list[Notes]], beats: int = 4) -> pathlib.Path:
    """Write a compressed score: of each part its measures."""
    names = "".join(f"<score-part id='{n}'><part-name>{n}</part-name></score-part>" for n in parts)
    music = ""
    for name, measures in parts.items():
        music += f"<part id='{name}'>"
        for i, measure in enumerate(measures):
            meter = f"<time><beats>{beats}</beats><beat-type>4</beat-type></time>"
            head = f"<attributes><divisions>8</divisions>{meter}</attributes>" if i == 0 else ""
            music += f"<measure number='{i}'>{head}{''.join(_note(*note) for note in measure)}</measure>"
        music += "</part>"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", "<container/>")
        text = f"<score-partwise><part-list>{names}</part-list>{music}</score-partwise>"
        archive.writestr("score.xml", text)
    return path


def _note(number: int, quarters: float, tie: str = "") -> str:
    step, alter = SHARP.get(number % 12) or (PLAIN[number % 12], 0)
    octave = number // 12 - 1
    inside = f"<step>{step}</step><alter>{alter}</alter><octave>{octave}</octave>"
    sound = f"<pitch>{inside}</pitch>" if number else "<rest/>"
    tied = f"<tie type='{tie}'/>" if tie else ""
    return f"<note>{sound}<duration>{round(quarters * 8)}</duration>{tied}</note>"


def test_a_score_is_read_by_sixteenths(tmp_path):
    lead = [[(67, 1)], [(72, 2), (71, 1), (60, 0.5), (60, 0.5)], [(60, 1, "stop"), (0, 3)]]
    hold = [[(48, 1)], [(48, 4)], [(49, 4)]]
    score = music_xml.read(mxl(tmp_path / "a.mxl", {"Soprano": lead, "Bass": hold}))
    assert score.parts == ("Soprano", "Bass")
    assert score.meters == {("4", "4")}
    assert score.bars.tolist() == [4, 20]  # after a pick-up of a quarter
    upper = [roll.Note(0, 67, 0, 4), roll.Note(0, 72, 4, 8), roll.Note(0, 71, 12, 4), roll.Note(0, 60, 16, 2)]
    upper += [roll.Note(0, 60, 18, 6)]  # tied over the bar line: one note
    lower = [roll.Note(1, 48, 0, 4), roll.Note(1, 48, 4, 16), roll.Note(1, 49, 20, 16)]
    assert roll.notes(score.pitch, score.onset) == upper + lower


def test_what_is_no_score_is_refused(tmp_path):
    path = tmp_path / "a.mxl"
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="no compressed MusicXML"):
        music_xml.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/container.xml", "<container/>")
    with pytest.raises(UserError, match="it holds no score"):
        music_xml.read(path)


def test_a_chorale_of_the_corpus_begins_as_it_is_printed():
    score = music_xml.read(corpus.folder() / "bwv66.6.mxl")
    assert [name.lower() for name in score.parts] == list(roll.NAMES)
    first = int(score.bars[0])
    assert score.pitch[first : first + 16 : 4].T.tolist() == [
        [69, 71, 73, 76],  # A4 B4 C#5 E5
        [66, 64, 64, 64],
        [61, 59, 57, 59],
        [54, 56, 57, 56],
    ]


# --- the data set -----------------------------------------------------------------------------------------------------


def piece(path: pathlib.Path, tune: list[int], bars: int = 6, beats: int = 4) -> None:
    """Write a chorale whose soprano repeats a tune, a note a beat."""
    at = iter(tune * bars)
    melody = [[(next(at), 1.0) for _ in range(beats)] for _ in range(bars)]
    others = {name: [[(number, float(beats))]] * bars for name, number in (("Alto", 60), ("Tenor", 55), ("Bass", 48))}
    mxl(path, {"Soprano": melody, **others}, beats)


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A corpus of five pieces in place of the installed one, and an empty data folder."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    tune = [72, 74, 76, 74, 72, 71, 69]
    piece(folder / "a1.mxl", tune)
    piece(folder / "a2.mxl", [note - 2 for note in tune])  # the same tune, lower
    piece(folder / "b.mxl", [67, 69, 71, 72, 74])
    piece(folder / "c.mxl", [76, 76, 77, 79, 67, 65])
    piece(folder / "waltz.mxl", tune, beats=3)
    monkeypatch.setattr(corpus, "folder", lambda: folder)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    return folder


def test_no_tune_is_in_two_splits(few):
    scores = corpus.scores()
    assert sorted(scores) == ["a1", "a2", "b", "c"]  # in 4/4 alone
    shares = corpus.splits(scores)
    assert sorted(shares["train"] + shares["test"]) == sorted(scores)
    assert shares["train"]
    assert shares["test"]
    assert len({split for split, names in shares.items() if {"a1", "a2"} & set(names)}) == 1
    assert corpus.splits(scores) == shares


def test_windows_are_whole_bars_of_one_piece(few):
    train, test = Chorales("train").open(), Chorales("test").open()
    assert len(train) + len(test) == 4 * 5  # two of six bars, from each bar but the last
    assert all(train[i]["image"].shape == Chorales().shape() == (32, 48, 4) for i in range(len(train)))
    for example in (train[0], test[0]):
        pitch, onset = roll.decode(example["image"])
        assert (pitch[:, 1:] == [60, 55, 48]).all()
        assert onset[:, 3].nonzero()[0].tolist() == [0, 16]  # struck again in the second bar
        np.testing.assert_array_equal(roll.encode(pitch, onset), example["image"])
    assert "licence" in train.notes[0]
    assert train.origin == "chorales (train)"
    assert len(Chorales("train", bars=4).open()) + len(Chorales("test", bars=4).open()) == 4 * 3
    with pytest.raises(UserError, match="no chorale has 8 whole bars"):
        Chorales(bars=8).open()


def test_without_its_package_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "music21" else real(name))
    with pytest.raises(DataNotFound, match="music21"):
        Chorales().open()


@pytest.mark.parametrize("make", [lambda: Chorales(bars=0), lambda: Chorales(bars=9), lambda: Transpose(semitones=-1)])
def test_fields_out_of_range_are_refused(make):
    with pytest.raises(UserError, match="it must be from"):
        make()
