"""Signals: one line and the status, wherever the process is, and what a run saved is kept."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest
from processes import ROOT, TINY, start

from jaxgen.runs.signals import Interrupt, Interrupted

PLACES = {
    "in Python": "while True: pass",
    "asleep": "import time; time.sleep(60)",
    "in a library": "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)",
    "in a finally": "try:\n    while True: pass\nfinally:\n    print('cleaned up')",
}


def running(code, within=()):
    """Start a process that has set up its signals and then runs the code."""
    code = f"from jaxgen.runs import signals\nsignals.end_at_once()\nprint('ready', flush=True)\n{code}"
    process = subprocess.Popen(
        [*within, sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    return process


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_process_in_one_line_wherever_it_is(place, number):
    process = running(place)
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (128 + number, "", f"{number.name}: stopped\n")


def test_under_nohup_a_closed_terminal_is_ignored():
    ignoring = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    process = running("import time; time.sleep(0.5); print('done')", within=ignoring)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "done\n", "")


def test_a_signal_after_the_work_is_done_changes_nothing():
    code = """
import os, signal, time
class Last:
    def __del__(self): os.kill(os.getpid(), signal.SIGINT)  # Python has given up its own handlers here
last = Last()
time.sleep(0.5)  # what comes with the first line is lost to `communicate`
print("done")
"""
    process = running(code)
    assert process.communicate(timeout=20) == ("done\n", "")
    assert process.returncode == 0


def test_a_childs_signal_is_not_its_parents():
    code = """
import multiprocessing, time
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
time.sleep(0.3)
child.terminate()
child.join()
time.sleep(0.3)
print("child", child.exitcode)
"""
    out, err = running(code).communicate(timeout=20)
    assert (out, err) == ("child -15\n", "")


def test_a_second_signal_ends_a_run_that_is_busy_in_a_library():
    code = "with signals.Interrupt():\n    import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    process = running(f"signals.ECHO = signals.GRACE = 0.2\n{code}")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None  # the first one asks
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "SIGINT: stopped at once; the last checkpoint is kept\n")


def test_a_run_that_cannot_stop_yet_says_that_it_heard():
    code = "with signals.Interrupt() as asked:\n    import time; time.sleep(1.0); print(asked())"
    process = running(f"signals.PATIENCE = 0.2\n{code}")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (out, err) == ("True\n", "stopping as soon as this step is saved; a second signal stops at once\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_runs_first_signal_asks_it_to_save(number):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        signal.raise_signal(number)
        assert interrupt()
        with pytest.raises(Interrupted, match=f"{number.name} at step 3: saved") as stopped:
            interrupt.leave(3)
    assert stopped.value.status == 128 + number
    assert signal.getsignal(number) is before


def hears(process):
    """Whether the process catches SIGTERM, which Python does not by itself."""
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(line for line in lines if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


SOON = [0.0, pytest.param(0.6, marks=pytest.mark.slow), pytest.param(1.5, marks=pytest.mark.by_hand)]


@pytest.mark.parametrize("seconds", SOON)
@pytest.mark.parametrize("command", [("train.py", TINY), ("-m", "jaxgen", "doctor")], ids=["train", "doctor"])
def test_a_signal_soon_after_the_start_is_one_line(command, seconds, tmp_path):
    out = ("--run-dir", tmp_path / "run") if command[0] == "train.py" else ()
    process = start(*command, *out, cache=tmp_path)
    while not hears(process):
        time.sleep(0.005)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    ended = (process.returncode, err)
    assert ended == (130, "SIGINT: stopped\n") or (command[-1] == "doctor" and ended == (0, ""))  # it was quicker
    assert not (tmp_path / "run" / "experiment.json").exists()
