"""The loop's own promises: cadence, divergence, and what the logs hold after a resume."""

import dataclasses
import json
import struct

import pytest
from small import segmentation, with_learners
from tensorboardX.proto import event_pb2

from jaxgen import loop
from jaxgen.errors import UserError
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.logs import JsonLines, RunInfo, TensorBoard


def rows(folder):
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


def test_everything_comes_at_its_step(tmp_path):
    folder = RunFolder(tmp_path / "run")
    experiment = dataclasses.replace(segmentation(), steps=7, log_every=3, evaluate_every=5, preview_every=4, keep=9)
    results = loop.train(experiment, folder)
    assert [row["step"] for row in rows(folder) if row["split"] == "train"] == [3, 6, 7]
    assert [row["step"] for row in rows(folder) if row["split"] == "test"] == [5, 7]
    # The first preview comes with the first line of metrics.
    assert sorted(p.name for p in folder.previews.iterdir()) == [f"step_0000000{k}_masks.png" for k in (3, 4, 7)]
    assert sorted(int(p.name) for p in folder.checkpoints.iterdir() if p.name.isdigit()) == [3, 6, 7]
    assert json.loads(folder.eval.read_text()) == {"step": 7, "metrics": results}
    assert folder.experiment == experiment


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(tmp_path):
    folder = RunFolder(tmp_path / "run")
    made = segmentation()
    wild = Optimizer(learning_rate=Constant(value=1e30), method=Sgd())
    experiment = dataclasses.replace(
        made, objective=with_learners(made.objective, lambda net: dataclasses.replace(net, optimizer=wild))
    )
    with pytest.raises(UserError, match=r"(loss|gradient_norm) is (nan|inf) at step \d+(.|\n)*lower learning rate"):
        loop.train(dataclasses.replace(experiment, checkpoint_every=1), folder)
    assert any(folder.checkpoints.iterdir())
    assert not folder.eval.exists()


def test_lines_of_steps_that_come_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def info(start: int) -> RunInfo:
        return RunInfo(folder=tmp_path, start=start, steps=8, settings={})

    log = JsonLines().open(info(0))
    for step in (2, 4, 6):
        log.write(step, "train", {"loss": float("nan") if step == 4 else 0.5})
    log.write(6, "time", {"compile": 3.0})  # spent, whatever comes again
    log.close()
    with path.open("a") as file:
        file.write('{"step": 8, "split": "tr')  # a crash cut it short
        file.write('\n[1]\n7\n{"step": "many"}\n{"step": 1e999}\n\x00\n')  # and what a failing disk may leave
    JsonLines().open(info(4)).close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 2, "split": "train", "loss": 0.5},
        {"step": 4, "split": "train", "loss": None},
        {"step": 6, "split": "time", "compile": 3.0},
    ]


def session_starts(folder):
    """The steps from which each of a folder's event files, oldest first, takes over from those before it."""
    starts = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
            starts += [event.step] if event.session_log.status == event_pb2.SessionLog.START else []
            at += length + 16
    return starts


def test_tensorboard_hides_what_is_written_again(tmp_path):
    for number, start in enumerate((0, 0, 4)):  # the second one starts anew: the first reached no checkpoint
        log = TensorBoard().open(RunInfo(folder=tmp_path, start=start, steps=8, settings={}))
        log.write(start + 1, "train", {"loss": 0.5})
        log.close()
        (written,) = tmp_path.glob("*.tfevents.??*")  # named after the second: these are made within one
        written.rename(tmp_path / f"events.out.tfevents.{number}")
    assert session_starts(tmp_path) == [1, 5]
