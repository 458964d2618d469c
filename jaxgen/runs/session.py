"""One training of a run folder: claiming it, its logs, what happens at which step, and how it is left.

The loop says in which order things happen, the session does them.
"""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax

from jaxgen.config import codec
from jaxgen.data import about
from jaxgen.data.batches import DataSpec
from jaxgen.errors import UserError
from jaxgen.evaluation import SampleEvaluator, evaluated, evaluation_batches, sums
from jaxgen.experiment import Experiment
from jaxgen.learner import Scalars
from jaxgen.metrics import accumulators
from jaxgen.objective import Diagnosing
from jaxgen.optim import ema
from jaxgen.parallel import rules
from jaxgen.parallel.mesh import put_batch
from jaxgen.parallel.processes import any_process, is_main_process
from jaxgen.pictures import sheet
from jaxgen.program import Program
from jaxgen.runs import checks, signals
from jaxgen.runs.checkpoints import Checkpoints
from jaxgen.runs.claim import check_place, claim
from jaxgen.runs.compiling import Compiling
from jaxgen.runs.divergence import Diverged
from jaxgen.runs.folder import RunFolder, write_results
from jaxgen.runs.lock import lock
from jaxgen.runs.logs import Logs, RunInfo
from jaxgen.runs.meter import Meter
from jaxgen.runs.restore import emas
from jaxgen.state import State
from jaxgen.typing import Batch

PREVIEW, POINTS = 8, 1024  # examples in a preview, if they are images, or points


class Session:
    """A training under way. Made by `open`; every method is called by all processes of the run alike."""

    program: Program
    state: State
    """The state to begin with."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, experiment: Experiment, folder: RunFolder) -> Iterator["Session"]:
        """Check everything, claim the folder, restore the newest checkpoint or make the first state.

        Raises UserError for what the user can fix, before any long work starts, and on leaving Interrupted after a
        signal, when the last finished step is saved.
        """
        session = cls()
        with contextlib.ExitStack() as stack:
            session._open(stack, experiment, folder)
            # From here on, every copy between host and device is one that we asked for.
            stack.enter_context(jax.transfer_guard("disallow"))
            yield session

    def _open(self, stack: contextlib.ExitStack, experiment: Experiment, folder: RunFolder) -> None:
        self._experiment, self._folder = experiment, folder
        check_place(folder.path)
        lock(stack, folder.path, functools.partial(print, file=sys.stderr, flush=True))
        self._train_set, self._test_set = experiment.train.source.open(), experiment.test.source.open()
        checks.check_data(self._train_set, self._test_set)
        data = DataSpec.of(self._train_set, experiment.train.transforms)
        data = dataclasses.replace(data, counts=(len(self._train_set), len(self._test_set)))
        self.program = Program.of(experiment, data)
        checks.check(self.program, self._train_set, self._test_set)
        self._shown = put_batch(self.program.mesh, self._examples_shown())
        checks.check_preview(self.program, self._shown)
        notes = about.lines(self._train_set, self._test_set, data.element)
        notes += checks.check_room(self.program, folder)
        for name, learner in self.program.objective.learners.items():
            notes += ema.notes(name, learner.ema, experiment.steps)
        notes += claim(folder, experiment, data)
        if is_main_process():
            folder.sharding.write_text("\n".join(rules.table(self.program.shapes)) + "\n")

        self._interrupt = stack.enter_context(signals.Interrupt())
        self._stopping = any_process(self.program.mesh, self._interrupt)
        self._asked_to_stop = False
        self._checkpoints = stack.enter_context(Checkpoints(folder.checkpoints, keep=experiment.keep))
        self._snapshots = None
        if experiment.snapshot_every:
            self._snapshots = stack.enter_context(Checkpoints(folder.snapshots, keep=None))
        damaged: list[str] = []
        latest = self._checkpoints.restore_latest(self.program.shapes, damaged.append)
        self._step = latest[0] if latest else 0
        self._checkpoints.set_aside(newer_than=self._step)
        weights = None if latest else self.program.weights()

        self._open_logs(stack, [*notes, *(f"warning: {line}" for line in damaged)])
        self._warned: set[str] = set()  # each kind is said once
        self._meter = Meter(experiment.batch_size)
        stack.callback(lambda: self._logs.write(self._step, "time", self._meter.seconds()))
        self._pending: tuple[int, Scalars] | None = None
        self._compile_ahead(stack)
        with self._meter.spending("compile"):
            self.state = latest[1] if latest else self.program.init(weights)

    def _compile_ahead(self, stack: contextlib.ExitStack) -> None:
        """Begin to compile what the run will need, in the order in which it will; nothing waits here."""
        program = self.program
        self._compiling = Compiling(stack, program, lambda line: self._logs.progress(line, 0, 0))
        if self._step < self._experiment.steps:
            self._compiling.begin("step", program.step, program.shapes, program.spec)
            self._compiling.begin("preview", program.preview, program.shapes, self._shown)
        self._compiling.begin("evaluation", program.evaluate, program.shapes, evaluated(program, self._test_set))

    def _wait_for(self, name: str) -> None:
        with self._meter.spending("compile"):
            self._compiling.wait(name)

    def _examples_shown(self) -> dict[str, Any]:
        """Return the test examples of the previews: a batch of an evaluation where images differ in size."""
        most = PREVIEW if len(self.program.data.element["image"][0]) == 3 else POINTS
        try:
            return next(evaluation_batches(self.program, self._test_set, min(most, len(self._test_set))))
        except UserError:
            return next(evaluation_batches(self.program, self._test_set))

    def _open_logs(self, stack: contextlib.ExitStack, notes: list[str]) -> None:
        experiment, folder = self._experiment, self._folder
        settings = codec.flatten(codec.encode(experiment))
        info = RunInfo(folder=folder.path, start=self._step, steps=experiment.steps, settings=settings)
        opened = []
        for logger in experiment.loggers if is_main_process() else ():
            opened.append(logger.open(info))
            stack.callback(opened[-1].close)
        self._logs = Logs(opened)
        self._watch = experiment.watchdog.open(info) if experiment.watchdog else None
        if self._watch:
            stack.callback(self._watch.close)
        if self._step:
            notes.append(f"going on from step {self._step} of {experiment.steps} in {folder.path}")
        for line in notes:
            self._logs.say(line)

    # --- step by step -------------------------------------------------------------------------------------------------

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) of the steps that are left; a batch is sent to the devices while they are busy."""
        while self._step < self._experiment.steps:
            feed = self.program.host_batches(self._train_set, start=self._step)
            while self._step < self._experiment.steps:
                with self._meter.spending("data_wait"):
                    rows = next(feed)
                self._wait_for("step")
                self._step += 1
                step = self._step
                self._begun = time.perf_counter()
                yield step, put_batch(self.program.mesh, rows)
                if self._step != step:  # a divergence policy went back
                    break

    def observe(self, step: int, state: State, scalars: Scalars) -> State:
        """Take a dispatched step's scalars; log the means of the last steps when it is time.

        Scalars are read one step late, while the devices work, or at once where a line of metrics or a checkpoint is
        due: a checkpoint is only taken of a state whose loss and gradient are finite. Returns the state to go on with,
        another one only where the divergence policy goes back.
        """
        experiment = self._experiment
        self._beat(step, "step")
        waiting, self._pending = self._pending, (step, scalars)
        try:
            if waiting:
                self._meter.add(waiting[0], jax.device_get(waiting[1]))
            self._logs.advance(step)
            self._asked_to_stop = self._stopping()
            if (
                self._asked_to_stop
                or self._due(step, experiment.log_every)
                or self._due(step, experiment.checkpoint_every)
            ):
                self._meter.add(step, jax.device_get(scalars))
                self._pending = None
        except Diverged as error:
            self._step, state = experiment.divergence.react(error, self._restore)
            self._pending = None
            self._meter.reset()
            return state
        self._meter.count("step_seconds", time.perf_counter() - self._begun)
        if self._due(step, experiment.log_every):
            values = self._meter.values()
            self._logs.write(step, "train", values)
            self._diagnose(values, step / experiment.steps)
        return state

    def save(self, step: int, state: State) -> None:
        """Save a checkpoint when it is time or the run is about to stop, and a snapshot of the EMAs when it is time."""
        if step != self._step:  # the step was undone
            return
        experiment = self._experiment
        if self._asked_to_stop or self._due(step, experiment.checkpoint_every):
            self._beat(step, "checkpoint")
            with self._meter.spending("checkpoint"):
                self._checkpoints.save(step, state)
        if self._snapshots and step % experiment.snapshot_every == 0 and step not in self._snapshots.steps:
            with self._meter.spending("checkpoint"):
                self._snapshots.save(step, emas(state))

    def leave_if_asked(self) -> None:
        """Raise Interrupted after a signal to any process of the run; the last step is saved."""
        if self._asked_to_stop:
            self._leave(self._step)

    def preview(self, step: int, state: State) -> None:
        """Draw what the objective shows, when it is time: with the first line of metrics, too."""
        experiment = self._experiment
        if step != self._step or not (self._due(step, experiment.preview_every) or step == experiment.log_every):
            return
        self._beat(step, "preview")
        self._wait_for("preview")
        with self._meter.spending("preview"):
            seen = jax.device_get(self.program.preview(state, self._shown))
            for name, picture in seen.items() if is_main_process() else ():
                pixels = sheet.draw(picture, self._test_set.classes, self._experiment.test.source)
                sheet.save_png(self._folder.previews / f"step_{step:08}_{name}.png", pixels)
                self._logs.image(step, name, pixels)

    def evaluate(self, step: int, state: State) -> None:
        """Evaluate on the test data, when it is time and the training is not over."""
        experiment = self._experiment
        every = experiment.evaluate_every
        if step != self._step or not every or step % every or step == experiment.steps:
            return
        self._beat(step, "evaluation")
        total = self._sums(state)
        if total is None:
            if step % experiment.checkpoint_every:
                self._checkpoints.save(step, state)
            self._leave(step)
        self._logs.write(step, "test", accumulators.results(total, self._test_set.classes))

    def finish(self, state: State) -> dict[str, Any]:
        """Evaluate the last state, measure its samples, write eval.json and return the results."""
        step = self._experiment.steps
        self._beat(step, "evaluation")
        total = self._sums(state)
        if total is None:
            self._leave(step)
        results = accumulators.results(total, self._test_set.classes)
        if self._experiment.metrics:
            with jax.transfer_guard("allow"), self._meter.spending("evaluation"):
                results |= SampleEvaluator(
                    self.program, state, self._train_set, self._test_set,
                    stop=self._leave_when_asked, hear=self._logs.progress,
                ).measure()  # fmt: skip
        self._logs.write(step, "test", results)
        for line in accumulators.table(results):
            self._logs.say(line)
        if is_main_process():
            write_results(self._folder, step, results)
        return results

    # ------------------------------------------------------------------------------------------------------------------

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self._experiment.steps

    def _beat(self, step: int, doing: str) -> None:
        if self._watch:
            self._watch.beat(step, doing)

    def _diagnose(self, values: dict[str, float], progress: float) -> None:
        objective = self.program.objective
        if isinstance(objective, Diagnosing):
            for kind, line in objective.diagnose(values, progress).items():
                if kind not in self._warned:
                    self._logs.say(f"warning: {line}")
                self._warned.add(kind)

    def _restore(self) -> tuple[int, State]:
        """Return the newest whole checkpoint, or the first state."""
        with jax.transfer_guard("allow"):
            latest = self._checkpoints.restore_latest(self.program.shapes, self._logs.say)
            return latest if latest else (0, self.program.init())

    def _sums(self, state: State) -> Any:
        self._wait_for("evaluation")
        with self._meter.spending("evaluation"):
            batches = evaluation_batches(self.program, self._test_set, hear=self._logs.progress)
            return sums(self.program, state, batches, self._stopping)

    def _leave_when_asked(self) -> None:
        if self._stopping():
            self._leave(self._experiment.steps)

    def _leave(self, step: int) -> None:
        self._checkpoints.close()
        self._interrupt.leave(step)
