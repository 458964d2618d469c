"""Signals: the first asks the run to save and stop, the second stops it at once."""

import signal
import time
from types import FrameType, TracebackType
from typing import NoReturn

ECHO = 1.0  # seconds in which a signal is the first one again: `uv run` hands on what the whole group got


class Interrupted(Exception):
    """The run stopped at a signal with its last finished step saved; `status` is the exit status (128 + signal)."""

    def __init__(self, step: int, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"{name} at step {step}: saved; the same command goes on from there")
        self.status = 128 + number


class Interrupt:
    """While entered, SIGINT and SIGTERM set a flag that the loop reads wherever it can stop."""

    def __init__(self) -> None:
        self._number = 0
        self._at = 0.0

    def __call__(self) -> bool:
        return self._number != 0

    def leave(self, step: int) -> NoReturn:
        """Raise Interrupted; where the signal came to another process, as if it had been SIGTERM."""
        raise Interrupted(step, self._number or signal.SIGTERM)

    def _catch(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._number and now - self._at > ECHO:
            raise KeyboardInterrupt
        if not self._number:
            self._number, self._at = number, now

    def __enter__(self) -> "Interrupt":
        self._before = {n: signal.signal(n, self._catch) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
