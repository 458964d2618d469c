"""Several real processes do what one does, and a run goes on however it is spread from then on."""

import json
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence

import numpy as np
import pytest
from processes import start

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.parallel import processes as joined
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore
from jaxgen.runs.signals import Interrupt, Interrupted

ADDRESS = "10.77.7."  # of the namespaces' own network
CONFIG = "tests/configs/descent.py"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def begin(folder: pathlib.Path, cache: pathlib.Path, count: int, devices: int, *more: str, hosts: Sequence[str] = ()):
    """Start `count` processes of `devices` devices each, each in its namespace where `hosts` names some."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"{ADDRESS}1" if hosts else "127.0.0.1"
    several = {"JAX_COORDINATOR_ADDRESS": f"{where}:{port}", "JAX_NUM_PROCESSES": str(count)} if count > 1 else {}
    return [
        start(
            "train.py", CONFIG, "--run-dir", folder, *more, cache=cache, JAX_NUM_CPU_DEVICES=str(devices),
            within=("ip", "netns", "exec", hosts[i]) if hosts else (),
            **several, **({"JAX_PROCESS_ID": str(i)} if several else {}),
        )
        for i in range(count)
    ]  # fmt: skip


def end(begun: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    said = [process.communicate(timeout=240) for process in begun]
    return [(process.returncode, *words) for process, words in zip(begun, said, strict=True)]


def train(folder, cache, count, devices, *more, hosts=()):
    done = end(begin(folder, cache, count, devices, *more, hosts=hosts))
    assert [code for code, *_ in done] == [0] * count, done
    return done


def losses(folder: pathlib.Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 13))  # once each, in order
    return [row["loss"] for row in rows if row["split"] == "train"]


def assert_same(folder: pathlib.Path, other: pathlib.Path) -> None:
    np.testing.assert_allclose(losses(folder), losses(other), rtol=1e-5)
    one, two = (restore(RunFolder(f), None, lambda _: None).state.nets["net"].params for f in (folder, other))
    for (path, a), (_, b) in zip(tree.leaves(one), tree.leaves(two), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 1e-5 * np.abs(np.asarray(a)).max(), path
    evals = [json.loads((f / "eval.json").read_text())["metrics"] for f in (folder, other)]
    assert evals[0]["miou"] == pytest.approx(evals[1]["miou"], abs=1e-6)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(folder, cache, 1, 1)
    return folder


FSDP = ("--mesh.replica", "1", "--mesh.fsdp", "-1")


@pytest.mark.parametrize(
    ("count", "devices", "more"),
    [
        pytest.param(2, 2, FSDP, marks=pytest.mark.slow),
        pytest.param(1, 4, (), marks=pytest.mark.by_hand),
        # Both processes hold every row of the batch, and half of each picture.
        pytest.param(2, 1, ("--mesh.replica", "1", "--mesh.context", "2"), marks=pytest.mark.by_hand),
    ],
)
def test_processes_and_devices_change_nothing(alone, tmp_path, cache, count, devices, more):
    done = train(tmp_path / "run", cache, count, devices, *more)
    assert_same(tmp_path / "run", alone)
    spoken = [out for _, out, _ in done if "step 12/12" in out]
    assert len(spoken) == 1  # one process speaks
    assert len(list((tmp_path / "run" / "previews").glob("step_00000012_*.png"))) > 0


@pytest.fixture
def hosts(tmp_path):
    """Two network namespaces, joined by a cable, in which the machine's name means each one's own address."""
    names = [f"jaxgen{tmp_path.stat().st_ino % 100000}{end}" for end in "ab"]
    ip = lambda *words: subprocess.run(["ip", *words], check=True, capture_output=True)  # noqa: E731
    folders = [pathlib.Path("/etc/netns") / name for name in names]
    try:
        ip("netns", "add", names[0])
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this system makes no network namespaces")
    try:
        ip("netns", "add", names[1])
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for i, (name, folder) in enumerate(zip(names, folders, strict=True), start=1):
            ip("-n", name, "address", "add", f"{ADDRESS}{i}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS}{i} {socket.gethostname()}\n")
        yield names
    finally:
        for name, folder in zip(names, folders, strict=True):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.by_hand
def test_hosts_of_their_own_change_nothing(alone, tmp_path, cache, hosts):
    train(tmp_path / "run", cache, 2, 2, *FSDP, hosts=hosts)
    assert_same(tmp_path / "run", alone)


def interrupted(folder: pathlib.Path, cache: pathlib.Path, count: int, devices: int, *more: str) -> int:
    """Send SIGTERM to the last process alone as soon as it trains, and return the step at which all stopped."""
    begun = begin(folder, cache, count, devices, *more)
    log = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    begun[-1].send_signal(signal.SIGTERM)
    done = end(begun)
    assert [code for code, *_ in done] == [143] * count, done
    steps = {line for _, _, err in done for line in err.splitlines() if "SIGTERM at step" in line}
    assert len(steps) == 1, done
    return int(steps.pop().split("step ")[1].split(":")[0])


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param((2, 2, FSDP), (1, 8, ("--mesh.replica", "2", "--mesh.fsdp", "4")), marks=pytest.mark.slow),
        pytest.param((4, 2, FSDP), (2, 1, FSDP), marks=pytest.mark.by_hand),
        pytest.param((4, 2, ("--mesh.replica", "4", "--mesh.fsdp", "2")), (1, 8, ()), marks=pytest.mark.by_hand),
    ],
)
def test_a_run_goes_on_elsewhere(alone, tmp_path, cache, first, then):
    slowly = ("--test-batch-size", "1")  # which changes no result, and gives the signal time to come before the end
    at = interrupted(tmp_path / "run", cache, first[0], first[1], *first[2], *slowly)
    assert 0 < at <= 12
    (_, out, _), *others = train(tmp_path / "run", cache, then[0], then[1], *then[2], *slowly)
    assert not any("step 12/12" in words for _, words, _ in others)  # the first process alone speaks
    assert f"going on from step {at} of 12" in out
    assert ("note: changed: mesh." in out) == (first[2] != then[2])
    assert_same(tmp_path / "run", alone)


def test_an_incomplete_call_for_others_is_refused(monkeypatch):
    for name in joined.BY_HAND:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    with pytest.raises(UserError, match=r"JAX_COORDINATOR_ADDRESS, JAX_PROCESS_ID is not set"):
        joined.initialize()
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("JAX_PROCESS_ID", "first")
    with pytest.raises(UserError, match="cannot join the other processes"):
        joined.initialize()


def test_alone_nobody_is_waited_for(monkeypatch):
    for name in (*joined.BY_HAND, "SLURM_STEP_NODELIST", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    joined.initialize()
    assert joined.is_main_process()
    joined.barrier("nowhere")


def test_the_mistake_of_all_is_said_by_all(tmp_path, cache):
    done = end(begin(tmp_path / "run", cache, 2, 1, "--batch-size", "3"))
    assert [code for code, *_ in done] == [2, 2]
    assert all("batch size 3 does not divide over 2 device(s)" in err for *_, err in done)


def test_an_echo_of_a_signal_is_no_second_one(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Interrupt() as interrupt:
        assert not interrupt()
        signal.raise_signal(signal.SIGTERM)
        now[0] += 0.5  # `uv run` hands on what the whole group got
        signal.raise_signal(signal.SIGTERM)
        assert interrupt()
        now[0] += 1.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM at step 7: saved") as stopped:
            interrupt.leave(7)
    assert stopped.value.status == 143
    with pytest.raises(Interrupted, match="SIGTERM at step 7") as stopped:
        Interrupt().leave(7)  # where another process had the signal
    assert stopped.value.status == 143
