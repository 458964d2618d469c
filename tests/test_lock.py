"""One process trains in a run folder; what a dead one left is taken over."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from small import linear

from jaxgen import loop
from jaxgen.errors import UserError
from jaxgen.runs import lock
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.lock import NAME, Lock

HERE = socket.gethostname()


def left(folder, host=HERE, process=None, age=0.0):
    """A lock's file that a process left; by default, one that ran and ended."""
    if process is None:
        ended = subprocess.Popen([sys.executable, "-S", "-c", ""])
        ended.wait()
        process = ended.pid
    folder.mkdir(exist_ok=True)
    file = folder / NAME
    file.write_text(json.dumps({"host": host, "process": process, "since": "2026-01-01 10:00:00", "command": "train"}))
    os.utime(file, (time.time() - age,) * 2)
    return process


def entered(folder):
    """Take the lock and give it back; return what was said."""
    said = []
    with Lock(folder, said.append):
        assert json.loads((folder / NAME).read_text())["process"] == os.getpid()
    assert not (folder / NAME).exists()
    return said


def test_a_second_run_is_refused_with_the_first_ones_process_and_host_before_it_writes(tmp_path):
    folder = tmp_path / "run"
    with Lock(folder, pytest.fail):
        with pytest.raises(
            UserError, match=rf"in use: process {os.getpid()} on {HERE} \(since .*\) trains there"
        ) as no:
            loop.train(linear(), RunFolder(folder))
        assert [path.name for path in folder.iterdir()] == [NAME]
    assert len(str(no.value).splitlines()) == 2
    assert not folder.exists()  # which the first one had made, and put nothing into


def test_a_folder_that_was_there_stays(tmp_path):
    assert entered(tmp_path) == []
    assert tmp_path.exists()


def test_what_a_dead_process_of_this_host_left_is_taken_over_at_once_and_said(tmp_path):
    process = left(tmp_path)
    (said,) = entered(tmp_path)
    assert said.startswith(f"note: process {process} on {HERE} (since 2026-01-01 10:00:00: train) left {tmp_path}")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "\x00" * 40])
def test_a_garbled_lock_holds_no_one_up(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    assert entered(tmp_path) == []


def test_another_hosts_lock_with_no_beat_for_long_is_taken_over_at_once(tmp_path):
    left(tmp_path, host="elsewhere", process=1, age=lock.OLD + 1)
    (said,) = entered(tmp_path)
    assert "process 1 on elsewhere" in said


def test_another_hosts_lock_that_was_just_alive_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT", 0.1)
    left(tmp_path, host="elsewhere", process=1)
    waiting, taking = entered(tmp_path)
    assert "waiting 0 s for a sign of life" in waiting
    assert "taking over" in taking


def test_another_hosts_lock_that_beats_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT", 0.3)
    left(tmp_path, host="elsewhere", process=1)
    beat = threading.Timer(0.05, os.utime, [tmp_path / NAME])
    beat.start()
    with pytest.raises(UserError, match="in use: process 1 on elsewhere"):
        entered(tmp_path)
    beat.join()
    assert (tmp_path / NAME).exists()  # it is the other one's


@pytest.mark.parametrize("system", ["no flock", "no shared flock"])
def test_without_a_lock_of_the_kernel_the_text_and_the_beat_decide(tmp_path, monkeypatch, system):
    monkeypatch.setattr(lock, "WAIT", 0.2)
    if system == "no flock":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr(lock, "_flock", lambda file: None)
    left(tmp_path)
    assert len(entered(tmp_path)) == 1  # dead: no need to wait
    left(tmp_path, process=os.getppid())
    beat = threading.Timer(0.05, os.utime, [tmp_path / NAME])
    beat.start()
    with pytest.raises(UserError, match=f"in use: process {os.getppid()} on {HERE}"):
        entered(tmp_path)
    beat.join()


def test_the_holders_beat_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with Lock(tmp_path, pytest.fail):
        os.utime(tmp_path / NAME, (0, 0))
        end = time.monotonic() + 5
        while (tmp_path / NAME).stat().st_mtime == 0 and time.monotonic() < end:
            time.sleep(0.01)
        assert time.time() - (tmp_path / NAME).stat().st_mtime < 5


def test_a_lock_that_another_took_meanwhile_is_not_removed(tmp_path):
    with Lock(tmp_path, pytest.fail):
        left(tmp_path, host="elsewhere", process=1)
    assert "elsewhere" in (tmp_path / NAME).read_text()


def test_a_lock_file_that_is_removed_while_it_is_waited_for_is_made_anew(tmp_path, monkeypatch):
    flock = lock._flock
    files = []

    def removed_once(file):
        files.append(file)
        if len(files) == 1:  # its holder ends between our opening and our locking of it
            (tmp_path / NAME).unlink()
        return flock(file)

    monkeypatch.setattr(lock, "_flock", removed_once)
    assert entered(tmp_path) == []
    assert len(files) == 2
