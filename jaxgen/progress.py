"""How far long work is: a line that is drawn over on a terminal, and a line now and then where there is none."""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from types import TracebackType
from typing import Protocol, runtime_checkable

WIDEST = 100  # columns that a line takes at most
EVERY = 10.0  # seconds between two lines where there is no terminal
OFTEN = 0.1  # seconds between two drawings on a terminal

Heard = Callable[[str, int, int], None]  # what is done, how much of it, of how much; see `Line.hear`


def unheard(doing: str, done: int, total: int) -> None:
    """Nobody listens."""


def counted[T: Sized](parts: Iterable[T], hear: Heard, doing: str, total: int) -> Iterator[T]:
    """Yield the parts, and say after each how many rows there have been."""
    done = 0
    hear(doing, done, total)
    for part in parts:
        yield part
        done += len(part)
        hear(doing, done, total)


class Rate:
    """How fast something goes since its first part was done, which may have waited for the compiler."""

    def __init__(self) -> None:
        self._first, self._begin = 0, 0.0

    def left(self, done: int, total: int) -> float | None:
        """Return the seconds that the rest will take, None as long as that is not known."""
        now = time.monotonic()
        if done and not self._first:
            self._first, self._begin = done, now
        return (total - done) * (now - self._begin) / (done - self._first) if done > self._first else None


@runtime_checkable
class Stream(Protocol):
    """What a line is written to: sys.stdout, or whatever is in its place."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...
    def isatty(self) -> bool: ...
    def fileno(self) -> int: ...


class Line:
    """The line on a stream, without colours; entered, it is taken away in the end, also where an error comes."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.redrawn = stream.isatty() and os.environ.get("TERM") != "dumb"
        """Whether the stream is a terminal on which a line can be drawn over."""
        self._shown = ""
        self._doing, self._done, self._rate = "", 0, Rate()
        self._last = time.monotonic()

    def __enter__(self) -> "Line":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.erase()

    def say(self, text: str) -> None:
        """Print something that stays."""
        shown = self._shown
        self.erase()
        self._stream.write(f"{text}\n")
        if shown:
            self._draw(shown)
        self._stream.flush()

    def due(self) -> bool:
        """Whether it is time to show something again."""
        return time.monotonic() - self._last >= (OFTEN if self.redrawn else EVERY)

    def show(self, words: Sequence[str]) -> None:
        """Show words: on a terminal those of them, from the first on, that one line has room for."""
        self._last = time.monotonic()
        if self.redrawn:
            self._draw(self._fitted(words))
            self._stream.flush()
        else:
            self.say(self._fitted(words))

    def keep(self, words: Sequence[str]) -> None:
        """Print words, as `show` shows them, so that they stay; the line goes until something is shown again."""
        self.erase()
        self.say(self._fitted(words))

    def hear(self, doing: str, done: int, total: int) -> None:
        """Show how far some work is and how long the rest takes; of work without parts (0 of 0) that it has begun.

        On a terminal the line goes when all is done; elsewhere nothing is said of work that is soon done.
        """
        begins = doing != self._doing or done < self._done
        self._doing, self._done = doing, done
        if begins:
            self._rate = Rate()
            self._last = self._last if self.redrawn else time.monotonic()
        left = self._rate.left(done, total)
        if not total:
            self.show([doing])
        elif done >= total:
            self._doing = ""
            self.erase()
        elif self.due() or (begins and self.redrawn):
            self.show([f"{doing} {done:,}/{total:,}", *([] if left is None else [f"ETA {clock(left)}"])])

    def erase(self) -> None:
        """Take the line away."""
        if self._shown:
            self._stream.write("\r\x1b[2K")
            self._stream.flush()
        self._shown = ""

    def _draw(self, text: str) -> None:
        self._stream.write(f"\r\x1b[2K{text}")
        self._shown = text

    def _fitted(self, words: Sequence[str]) -> str:
        return fitting(words, min(self._columns() - 1, WIDEST)) if self.redrawn else "  ".join(words)

    def _columns(self) -> int:
        if "COLUMNS" in os.environ:
            return shutil.get_terminal_size().columns
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


def fitting(words: Sequence[str], columns: int) -> str:
    """Join words, leaving out those from which on there is no room; a first one that is too long is cut."""
    line = words[0][:columns]
    for word in words[1:]:
        if len(line) + 2 + len(word) > columns:
            break
        line += f"  {word}"
    return line


def clock(seconds: float) -> str:
    """Write a duration: 0:07, 12:30, 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
