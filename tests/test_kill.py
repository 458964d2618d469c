"""A run that is killed at any moment and started again ends with the bits of one that was not."""

import json
import os
import pathlib
import signal
import socket
import time

import pytest
from processes import TINY, call, start

from jaxgen import tree
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("straight") / "run"
    done = call("train.py", TINY, "--run-dir", folder, cache=cache)
    assert done.returncode == 0, done.stderr
    return folder, digest(folder)


def digest(folder: pathlib.Path) -> str:
    """What `jaxgen inspect` prints, without starting another process."""
    return tree.digest(restore(RunFolder(folder), None, pytest.fail).state)


def steps_written(folder: pathlib.Path) -> int:
    file = folder / "metrics.jsonl"
    rows = file.read_text().splitlines() if file.exists() else []
    return max((json.loads(row)["step"] for row in rows if row.endswith("}")), default=0)


def saving(folder: pathlib.Path) -> bool:
    """A checkpoint after the third is being written."""
    found = folder / "checkpoints"
    return found.exists() and any("tmp" in path.name and steps_written(folder) > 15 for path in found.iterdir())


MOMENTS = {
    "while a checkpoint is written": saving,
}
BY_HAND = {
    "between two checkpoints": lambda folder: steps_written(folder) >= 18,
    "as soon as the folder is claimed": lambda folder: (folder / "experiment.json").exists(),
    "before the first checkpoint": lambda folder: steps_written(folder) >= 2,
    "at the very end": lambda folder: steps_written(folder) >= 60,
}


@pytest.mark.parametrize(
    "moment",
    [pytest.param(m, id=name, marks=pytest.mark.slow) for name, m in MOMENTS.items()]
    + [pytest.param(m, id=name, marks=pytest.mark.by_hand) for name, m in BY_HAND.items()],
)
def test_killed_and_started_again(moment, straight, cache, tmp_path):
    folder = tmp_path / "run"
    process = start("train.py", TINY, "--run-dir", folder, cache=cache)
    while not moment(folder) and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    again = call("train.py", TINY, "--run-dir", folder, cache=cache)
    assert again.returncode == 0, again.stderr
    assert f"process {process.pid} on {socket.gethostname()}" in again.stderr  # its lock is taken over, without waiting
    assert "taking over" in again.stderr
    assert not (folder / "run.lock").exists()
    assert digest(folder) == straight[1]
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [(row["split"], row["step"]) for row in rows]
    assert len(set(kept)) == len(kept)
    assert [step for split, step in kept if split == "train"] == list(range(2, 61, 2))
    final = json.loads((folder / "eval.json").read_text())
    assert final == json.loads((straight[0] / "eval.json").read_text())


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, marks=pytest.mark.by_hand),
        pytest.param(signal.SIGHUP, marks=pytest.mark.by_hand),
    ],
)
def test_a_signal_saves_and_says_so(number, straight, cache, tmp_path):
    folder = tmp_path / "run"
    process = start("train.py", TINY, "--run-dir", folder, cache=cache)
    while steps_written(folder) < 16:
        time.sleep(0.002)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert number.name in err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    again = call("train.py", TINY, "--run-dir", folder, cache=cache)
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stdout
    assert digest(folder) == straight[1]


@pytest.mark.by_hand
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_leaves_the_workers_to_the_run(number, straight, cache, tmp_path):
    folder = tmp_path / "run"
    process = start("train.py", TINY, "--run-dir", folder, "--train.workers", "1", cache=cache, within=("setsid",))
    while steps_written(folder) < 16:
        time.sleep(0.002)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert len(err.splitlines()) == 1
    assert "saved; the same command goes on" in err
    assert call("train.py", TINY, "--run-dir", folder, cache=cache).returncode == 0
    assert digest(folder) == straight[1]


@pytest.mark.by_hand
def test_two_seeds_end_apart(straight, cache, tmp_path):
    folder = tmp_path / "run"
    done = call("train.py", TINY, "--run-dir", folder, "--seed", "1", "--steps", "60", cache=cache)
    assert done.returncode == 0, done.stderr
    assert digest(folder) != straight[1]
