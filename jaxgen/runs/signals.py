"""Signals: before there is anything to save they end the process in one line; in a run, the first asks it to save.

Python calls a signal's handler between two of its own instructions. Where the process is inside a library for long,
as in XLA's compiler, a thread that the kernel wakes directly acts in the handler's stead.
"""

import atexit
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import NoReturn

ECHO = 1.0  # seconds in which a signal is the first one again: `uv run` hands on what the whole group got
PATIENCE = 3.0  # seconds after the first signal at which a run that still goes on says that it heard
GRACE = 2.0  # seconds that a run has after the second signal to leave by itself, before the thread ends it

_runs: list["Interrupt"] = []  # those entered: a signal is theirs
_ending = threading.Lock()  # held by whoever ends the process, so that one line is printed


class Interrupted(Exception):
    """The run stopped at a signal with its last finished step saved; `status` is the exit status (128 + signal)."""

    def __init__(self, step: int, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(f"{name} at step {step}: saved; the same command goes on from there")
        self.status = 128 + number


class Interrupt:
    """While entered, SIGINT, SIGTERM and SIGHUP set a flag that the loop reads wherever it can stop."""

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
        self._before = {n: signal.signal(n, self._catch) for n in _heard()}
        _runs.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._number:  # one that heard a signal is leaving: the thread ends it only if that lasts
            _runs.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)


def end_at_once() -> None:
    """Let a signal end this process in one line, from now on and wherever it is; an `Interrupt` takes precedence.

    It is for a process's beginning, and for its main thread: there is nothing to save.
    """
    for number in _heard():
        signal.signal(number, lambda number, frame: _end(number, "stopped"))
    atexit.register(_ignore)  # before all others, and so called after them
    wake, woken = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.detach(), warn_on_full_buffer=False)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)  # a child's signals are not its parent's
    threading.Thread(target=_listen, args=(woken,), name="signals", daemon=True).start()


def _ignore() -> None:
    """Let the process end with its own status: its work is done, and Python is about to give up its handlers."""
    for number in _heard():
        signal.signal(number, signal.SIG_IGN)


def _forget() -> None:
    signal.set_wakeup_fd(-1)
    for number in _heard():
        signal.signal(number, signal.SIG_DFL)


def _listen(woken: socket.socket) -> None:
    """Act on signals that the main thread, busy in a library, does not hear."""
    first = 0.0
    while True:
        try:
            number = woken.recv(1)[0]
        except TimeoutError:
            woken.settimeout(None)
            _say("stopping as soon as this step is saved; a second signal stops at once")
            continue
        if number not in _heard():
            continue
        if not _runs:
            _end(number, "stopped")
        now = time.monotonic()
        if first and now - first > ECHO:
            time.sleep(GRACE)
            _end(number, "stopped at once; the last checkpoint is kept")
        elif not first:
            first = now
            woken.settimeout(PATIENCE)


def _end(number: int, said: str) -> None:
    """Print one line and end the process and those that make its batches; whatever it was about to do is not done."""
    if not _ending.acquire(blocking=False):
        return
    _say(f"{signal.Signals(number).name}: {said}")
    for child in sys.modules["multiprocessing"].active_children() if "multiprocessing" in sys.modules else ():
        child.kill()
    os._exit(128 + number)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        os.write(2, f"{line}\n".encode())  # the buffers of sys.stderr may be locked by what was interrupted


def _heard() -> list[int]:
    """Signals that end a run. Under nohup a closed terminal is ignored, and stays so; Windows knows no SIGHUP."""
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return numbers
