"""Progress that a person reads: one line on a terminal, a line now and then elsewhere."""

import io
import pathlib
import re
import types

import pytest

from jaxgen import progress
from jaxgen.progress import Line, clock, counted, fitting
from jaxgen.runs.logs import RunInfo, Terminal

CLEAR = "\r\x1b[2K"
MANY = {f"network/layer{i}/gradient_norm": 0.123456 * i for i in range(30)} | {
    "images_per_second": 1234.5, "data_wait": 0.01, "generator_loss": 1.5, "loss": 0.25,
}  # fmt: skip


class Stream(io.StringIO):
    """A file, or a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def now(monkeypatch):
    """The clock, which stands unless it is set."""
    seconds = [100.0]
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def at_times(now, line, times, total=8):
    for done, seconds in times:
        now[0] = 100.0 + seconds
        line.hear("samples", done, total)


# The first two waited for the compiler; from then on two samples took 5 seconds, and then four took 16.
TIMES = [(0, 0.0), (2, 100.0), (4, 105.0), (6, 116.0), (8, 130.0)]


def test_without_a_terminal_it_is_said_now_and_then_where_it_takes_long(now):
    stream = Stream(terminal=False)
    at_times(now, Line(stream), TIMES)
    assert stream.getvalue().splitlines() == ["samples 2/8", "samples 6/8  ETA 0:08"]
    quick = Stream(terminal=False)
    at_times(now, Line(quick), [(done, seconds / 20) for done, seconds in TIMES])
    assert quick.getvalue() == ""


def test_on_a_terminal_one_line_is_drawn_over_and_taken_away(now):
    stream = Stream(terminal=True)
    at_times(now, Line(stream), TIMES)
    assert stream.getvalue().split(CLEAR) == [
        "", "samples 0/8", "samples 2/8", "samples 4/8  ETA 0:10", "samples 6/8  ETA 0:08", "",
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [20, 60, 100, 300])
def test_a_line_never_wraps_and_losses_come_first(columns, now, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout", stream := Stream(terminal=True))
    log = Terminal().open(RunInfo(folder=pathlib.Path(), start=0, steps=2000, settings={}))
    for step in (1, 2, 50):
        now[0] += 1
        log.advance(step)
    log.write(50, "train", MANY)
    drawn = stream.getvalue().split(CLEAR)
    assert max(map(len, drawn)) <= min(columns - 1, progress.WIDEST)
    assert "\n" not in stream.getvalue()
    if columns >= 60:
        assert drawn[-1].startswith("step 50/2000  ETA 1:20  loss 0.25  generator_loss 1.5")
    if columns >= 100:
        assert "images_per_second 1234" in drawn[-1]
    log.close()
    assert stream.getvalue().endswith(CLEAR)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_dumb_terminal_and_a_file_get_plain_lines(terminal, now, monkeypatch):
    monkeypatch.setenv("TERM", "dumb" if terminal else "xterm-256color")
    monkeypatch.setattr("sys.stdout", stream := Stream(terminal=terminal))
    log = Terminal().open(RunInfo(folder=pathlib.Path(), start=0, steps=4, settings={}))
    log.progress("compiling the step (usually 40 s)", 0, 0)
    for step in (1, 2):
        log.advance(step)
        now[0] += 60
    log.advance(3)
    log.write(3, "train", {"data_wait": 0.5, "loss": 2.0})
    log.write(4, "test", {"accuracy": 0.5, "per_class": {}})
    log.close()
    assert stream.getvalue().splitlines() == [
        "compiling the step (usually 40 s)",
        "step 3/4  ETA 1:00  loss 2  data_wait 0.5",
        "step 4  test  accuracy 0.5",
    ]


def test_there_are_no_colours(now, monkeypatch):
    monkeypatch.setattr("sys.stdout", stream := Stream(terminal=True))
    log = Terminal().open(RunInfo(folder=pathlib.Path(), start=0, steps=4, settings={}))
    now[0] += 1
    log.advance(1)
    log.say("a note")
    log.write(1, "train", MANY)
    log.write(4, "train", MANY)
    assert set(re.findall(r"\x1b\[[0-9;]*.", stream.getvalue())) == {"\x1b[2K"}
    assert f"{CLEAR}a note\n{CLEAR}step 1/4" in stream.getvalue()  # the line is drawn again below what stays
    *_, last = stream.getvalue().split(CLEAR)
    assert last.startswith("step 4/4  loss 0.25  ")
    assert last.endswith("\n")  # the last one stays
    assert len(last) <= progress.WIDEST + 1


def test_the_line_goes_where_an_error_comes(now):
    stream = Stream(terminal=True)

    def failing():
        yield [1, 2]
        raise RuntimeError

    with pytest.raises(RuntimeError), Line(stream) as line:
        list(counted(failing(), line.hear, "rows", 4))
    assert stream.getvalue().endswith(CLEAR)


def test_rows_are_counted():
    heard = []
    parts = [[0, 1, 2], [3, 4, 5], [6]]
    assert list(counted(parts, lambda *words: heard.append(words), "rows", 7)) == parts
    assert heard == [("rows", 0, 7), ("rows", 3, 7), ("rows", 6, 7), ("rows", 7, 7)]


def test_words_and_durations():
    assert fitting(["step 1", "loss 2", "speed 3"], 14) == "step 1  loss 2"
    assert fitting(["a long first word"], 6) == "a long"
    assert [clock(s) for s in (0.4, 59.6, 750.0, 3723.0)] == ["0:00", "1:00", "12:30", "1:02:03"]
