"""One process trains in a run folder: a lock that the kernel gives back when its holder dies, and a heart-beat.

The lock is `flock` on a file whose text says who holds it. Some file systems do not share it between hosts; there the
holder's heart-beat, the file's time, tells whether it lives.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from jaxgen.errors import UserError
from jaxgen.parallel.processes import is_main_process, of_main_process

try:
    import fcntl
except ImportError:  # Windows: the text and the heart-beat have to do
    fcntl = None

NAME = "run.lock"
BEAT = 10.0  # seconds between heart-beats
WAIT = 25.0  # seconds in which a living holder's beat is seen
OLD = 600.0  # seconds after the last beat that no difference of clocks explains


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file says."""

    host: str
    process: int
    since: str
    command: str

    @classmethod
    def this(cls) -> "Holder":
        """This process."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), os.getpid(), now, " ".join(sys.argv))

    @classmethod
    def read(cls, file: int) -> "Holder | None":
        """Return who wrote the open file; None where it is empty or garbled."""
        try:
            os.lseek(file, 0, os.SEEK_SET)
            found = json.loads(os.read(file, 1 << 16))
            return cls(str(found["host"]), int(found["process"]), str(found["since"]), str(found["command"]))
        except (ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} (since {self.since}: {self.command:.120})"


class Lock:
    """Held while entered.

    Raises UserError on entering where another process that lives holds it, naming that one; what a dead one left is
    taken over, and `say` told so.
    """

    def __init__(self, folder: pathlib.Path, say: Callable[[str], None]) -> None:
        self._folder, self._path, self._say = folder, folder / NAME, say
        self._own = Holder.this()
        self._end = threading.Event()

    def __enter__(self) -> "Lock":
        self._made = not self._folder.exists()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = self._acquired()
            self._write()
        except OSError as error:
            raise UserError(
                f"cannot write to {self._folder}: {error.strerror}; choose another with --run-dir"
            ) from error
        threading.Thread(target=self._beat, name="lock", daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._end.set()
        with contextlib.suppress(OSError):  # the folder may have been removed
            if Holder.read(self._file) == self._own and os.fstat(self._file).st_ino == self._path.stat().st_ino:
                self._path.unlink()
        os.close(self._file)
        if self._made:
            with contextlib.suppress(OSError):  # what was refused before it wrote anything leaves nothing
                self._folder.rmdir()

    def _acquired(self) -> int:
        while True:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if self._hold(file):
                    return file
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _hold(self, file: int) -> bool:
        """Take the lock of an open file; return whether that file is still the folder's.

        Raises UserError where a living process has it.
        """
        shared = _flock(file)
        holder = Holder.read(file)
        if shared is False:
            raise self._refusal(holder)
        if holder is not None:
            here = holder.host == socket.gethostname()
            # Where the kernel gave the lock to us, no process of this host has it.
            dead = here and (shared or not _runs(holder.process))
            if not dead and self._beats(file, holder):
                raise self._refusal(holder)
            self._say(f"note: {holder} left {self._folder} without ending its run; taking over")
        try:
            return os.fstat(file).st_ino == self._path.stat().st_ino
        except FileNotFoundError:  # its holder removed it when it ended, just before it was ours
            return False

    def _beats(self, file: int, holder: Holder) -> bool:
        """Whether the holder, seen from here by its heart-beat only, is alive; its clock may differ from ours."""
        last = os.fstat(file).st_mtime
        if time.time() - last > OLD:
            return False
        self._say(f"note: {self._folder} was last used by {holder}; waiting {WAIT:.0f} s for a sign of life")
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            time.sleep(min(1.0, WAIT))
            if os.stat(self._path).st_mtime != last:
                return True
        return False

    def _refusal(self, holder: Holder | None) -> UserError:
        who = str(holder) if holder else "another process"
        return UserError(
            f"{self._folder} is in use: {who} trains there\nstop it first, or choose another folder with --run-dir"
        )

    def _write(self) -> None:
        os.ftruncate(self._file, 0)
        text = json.dumps(dataclasses.asdict(self._own)) + "\n"
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, text.encode())

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            try:
                os.utime(self._path)
            except OSError:  # the folder is gone, or away: the run itself will say so
                continue


def lock(stack: contextlib.ExitStack, folder: pathlib.Path, say: Callable[[str], None]) -> None:
    """Let the main process hold the folder's lock until the stack is left.

    Raises UserError, on every process, where another run holds it.
    """
    refusal = UserError(f"{folder} is in use; the main process says by whom")
    held = True
    if is_main_process():
        try:
            stack.enter_context(Lock(folder, say))
        except UserError as error:
            held, refusal = False, error
    if not of_main_process(held):
        raise refusal


def _flock(file: int) -> bool | None:
    """Whether the kernel gave us the lock; None where this system or file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _runs(process: int) -> bool:
    """Whether a process of this host is alive."""
    if os.name == "nt":  # os.kill would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
