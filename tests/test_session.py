"""What a session lets a user add: a logger, a divergence policy, a watchdog, and weights to start from."""

import dataclasses
import json
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import linear, with_learners

from jaxgen import loop, tree
from jaxgen.errors import UserError
from jaxgen.optim.optimizer import Optimizer, Sgd
from jaxgen.optim.schedules import Constant
from jaxgen.program import Program
from jaxgen.runs.checkpoints import Checkpoints
from jaxgen.runs.divergence import Diverged, Divergence
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.logs import JsonLines, Log, Logger, RunInfo
from jaxgen.runs.wandb import WandB
from jaxgen.runs.watchdog import Watchdog
from jaxgen.weights import files
from jaxgen.weights.files import Safetensors
from jaxgen.weights.trained import FromRun

HEARD: list[tuple] = []


@pytest.fixture(autouse=True)
def _nothing_heard():
    HEARD.clear()


# --- a logger of one's own, in twenty lines ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Listing:
    """A logger that keeps all it hears."""

    tag: str = "mine"

    def open(self, run: RunInfo) -> Log:
        HEARD.append(("open", self.tag, run.start, run.steps, run.settings["seed"]))
        return Listener()


class Listener:
    def write(self, step, split, values):
        HEARD.append(("write", step, split, sorted(values)))

    def image(self, step, name, pixels):
        HEARD.append(("image", step, name, pixels.dtype.name))

    def say(self, text):
        HEARD.append(("say", text))

    def advance(self, step):
        HEARD.append(("advance", step))

    def close(self):
        HEARD.append(("close",))


def test_a_logger_of_ones_own_hears_everything(tmp_path):
    assert isinstance(Listing(), Logger)
    experiment = dataclasses.replace(linear(), steps=4, loggers=(Listing(),))
    loop.train(experiment, RunFolder(tmp_path / "run"))
    kinds = [row[0] for row in HEARD]
    assert HEARD[0] == ("open", "mine", 0, 4, "0")
    assert [row[1] for row in HEARD if row[0] == "advance"] == [1, 2, 3, 4]
    assert [row[1:3] for row in HEARD if row[0] == "write"] == [(2, "train"), (4, "train"), (4, "test"), (4, "time")]
    assert HEARD[-2][3] == ["checkpoint", "compile", "data_wait", "evaluation", "preview", "step_seconds"]
    assert ("image", 4, "classes", "uint8") in HEARD
    assert any(row[0] == "say" and row[1].startswith("accuracy") for row in HEARD)
    assert kinds.count("close") == 1
    assert kinds[-1] == "close"
    assert not (tmp_path / "run" / "metrics.jsonl").exists()  # only what is asked for


@dataclasses.dataclass(frozen=True)
class Following:
    """A logger that also hears how far an evaluation is."""

    def open(self, run: RunInfo) -> Log:
        return Follower()


class Follower(Listener):
    def progress(self, doing, done, total):
        HEARD.append(("progress", doing, done, total))


def test_a_logger_may_hear_how_far_an_evaluation_is(tmp_path):
    experiment = dataclasses.replace(linear(), steps=1, loggers=(Following(),))  # 21 test examples in batches of 8
    loop.train(experiment, RunFolder(tmp_path / "run"))
    heard = [row[2:] for row in HEARD if row[:2] == ("progress", "evaluation")]
    assert heard == [(0, 21), (8, 21), (16, 21), (21, 21)]


def test_the_time_of_a_process_is_where_it_went(tmp_path):
    folder = RunFolder(tmp_path / "run")
    begin = time.perf_counter()
    loop.train(dataclasses.replace(linear(), steps=4, loggers=(JsonLines(),)), folder)
    spent = time.perf_counter() - begin
    row = json.loads(folder.metrics.read_text().splitlines()[-1])
    assert (row.pop("step"), row.pop("split")) == (4, "time")
    assert min(row.values()) > 0
    assert sum(row.values()) < spent
    with pytest.raises(UserError):
        loop.train(dataclasses.replace(wild(), loggers=(JsonLines(),)), RunFolder(tmp_path / "wild"))
    assert json.loads((tmp_path / "wild" / "metrics.jsonl").read_text().splitlines()[-1])["split"] == "time"


def test_loggers_and_watchdogs_may_change_and_the_policy_may_not(tmp_path):
    folder = RunFolder(tmp_path / "run")
    short = dataclasses.replace(linear(), steps=3)
    loop.train(short, folder)
    loop.train(dataclasses.replace(short, loggers=(JsonLines(), Listing(tag="late")), watchdog=Ear()), folder)
    assert ("say", "going on from step 3 of 3 in " + str(folder.path)) in HEARD
    with pytest.raises(UserError, match=r"holds another experiment: divergence"):
        loop.train(dataclasses.replace(short, divergence=GoBack(times=1)), folder)


def test_weights_and_biases_gets_metrics_images_and_settings(tmp_path, monkeypatch):
    run = types.SimpleNamespace(log=lambda row, step: HEARD.append((step, sorted(row))), finish=lambda: None)
    fake = types.ModuleType("wandb")
    fake.init = lambda **words: HEARD.append(words) or run
    fake.Image = lambda pixels: pixels.shape
    fake.errors = types.SimpleNamespace(Error=RuntimeError)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    experiment = dataclasses.replace(linear(), steps=2, loggers=(WandB(project="digits", mode="offline"),))
    loop.train(experiment, RunFolder(tmp_path / "run"))
    assert HEARD[0]["project"] == "digits"
    assert HEARD[0]["config"]["steps"] == "2"
    rows = HEARD[1:]
    assert any(step == 2 and "train/loss" in names for step, names in rows)
    assert any(step == 2 and "test/accuracy" in names for step, names in rows)
    assert (2, ["classes"]) in rows


def test_without_the_package_weights_and_biases_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    experiment = dataclasses.replace(linear(), loggers=(Listing(), WandB(project="digits")))
    with pytest.raises(UserError, match="WandB needs the package wandb"):
        loop.train(experiment, RunFolder(tmp_path / "run"))
    assert [row[0] for row in HEARD] == ["open", "close"]


# --- a divergence policy ----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GoBack:
    """Go back to the newest checkpoint so many times, then give up."""

    times: int

    def guard(self, step):
        return step

    def react(self, error, restore):
        HEARD.append(("diverged", str(error).splitlines()[0]))
        if len(HEARD) > self.times:
            raise error
        step, state = restore()
        HEARD.append(("back to", step))
        return step, state


@dataclasses.dataclass(frozen=True)
class Skip:
    """Keep the old state where the loss is not finite, and say so."""

    def guard(self, step):
        def guarded(state, batch):
            new, scalars = step(state, batch)
            good = jnp.isfinite(scalars["loss"])
            kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state.replace(step=state.step + 1))
            return kept, {"skipped": 1.0 - good.astype(jnp.float32), "loss": jnp.where(good, scalars["loss"], 0.0)}

        return guarded

    def react(self, error, restore):
        raise error


def wild():
    """Each step multiplies the weights' size by a large number: the loss is infinite within a few steps."""
    made = linear()
    fast = Optimizer(learning_rate=Constant(value=3e38), method=Sgd())
    objective = with_learners(made.objective, lambda net: dataclasses.replace(net, optimizer=fast))
    return dataclasses.replace(made, objective=objective, steps=6, log_every=1, checkpoint_every=1)


def test_a_policy_may_go_back_to_a_checkpoint(tmp_path):
    assert isinstance(GoBack(times=1), Divergence)
    experiment = dataclasses.replace(wild(), divergence=GoBack(times=1))
    with pytest.raises(Diverged):
        loop.train(experiment, RunFolder(tmp_path / "run"))
    kinds = [row[0] for row in HEARD]
    assert kinds == ["diverged", "back to", "diverged"]  # the same step of the same data diverges again
    assert HEARD[0] == HEARD[2]
    at = int(HEARD[0][1].split("step ")[1].split(";")[0])
    assert HEARD[1][1] == at - 1


def test_a_policy_may_skip_steps(tmp_path):
    folder = RunFolder(tmp_path / "run")
    loop.train(dataclasses.replace(wild(), divergence=Skip()), folder)
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    skipped = [row["skipped"] for row in rows if row["split"] == "train"]
    assert len(skipped) == 6
    assert skipped[0] == 0
    assert skipped[-1] == 1


# --- a watchdog -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Ear:
    """A watchdog that only listens."""

    def open(self, run: RunInfo):
        return types.SimpleNamespace(
            beat=lambda step, doing: HEARD.append((step, doing)), close=lambda: HEARD.append(("end",))
        )


def test_a_watchdog_hears_what_the_run_does(tmp_path):
    assert isinstance(Ear(), Watchdog)
    experiment = dataclasses.replace(linear(), steps=4, evaluate_every=2, preview_every=4, watchdog=Ear())
    loop.train(experiment, RunFolder(tmp_path / "run"))
    assert HEARD == [
        (1, "step"), (2, "step"), (2, "preview"), (2, "evaluation"), (3, "step"), (3, "checkpoint"),
        (4, "step"), (4, "checkpoint"), (4, "preview"), (4, "evaluation"), ("end",),
    ]  # fmt: skip


# --- frozen nets, and weights to start from ---------------------------------------------------------------------------


def of(learner_change):
    made = linear()
    return dataclasses.replace(made, objective=with_learners(made.objective, learner_change), steps=2)


def test_weights_replace_the_random_ones_and_their_ema(tmp_path):
    first = Program.of(dataclasses.replace(linear(), seed=5))
    net = jax.device_get(first.init().nets["net"])
    variables = {"params": net.params, **net.stats}
    files.write(variables, tmp_path / "w.safetensors")
    from_file = of(lambda net: dataclasses.replace(net, weights=Safetensors(str(tmp_path / "w.safetensors"))))
    state = Program.of(from_file).init()
    assert tree.digest(state.nets["net"].params) == tree.digest(net.params)
    assert tree.digest(state.nets["net"].ema[0]) == tree.digest(net.params)
    assert tree.digest(Program.of(linear()).init().nets["net"].params) != tree.digest(net.params)

    loop.train(dataclasses.replace(linear(), steps=2), RunFolder(tmp_path / "run"))
    from_run = of(lambda net: dataclasses.replace(net, weights=FromRun(str(tmp_path / "run"))))
    program = Program.of(linear())
    with Checkpoints(tmp_path / "run" / "checkpoints", writable=False) as checkpoints:
        trained = checkpoints.restore(2, program.shapes).nets["net"]
    assert tree.digest(Program.of(from_run).init().nets["net"].params) == tree.digest(trained.ema[0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.with_name("no.safetensors"), "there are no weights"),
        (lambda path: path.write_text("no weights") and path, r"is not a \.safetensors file"),
        (lambda path: path, "params/extra is of no use to the net"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_compiled(tmp_path, change, said):
    path = tmp_path / "w.safetensors"
    files.write({"params": {"extra": np.zeros(3, np.float32)}}, path)
    made = of(lambda net: dataclasses.replace(net, weights=Safetensors(str(change(path)))))
    with pytest.raises(UserError, match=said) as caught:
        Program.of(made).init()
    assert len(str(caught.value).splitlines()) <= 2
