"""The loop: mesh, shapes, shardings, state, restore, step, step, step. It knows objectives, never tasks."""

import contextlib
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxgen import metrics, pictures
from jaxgen.average import Power
from jaxgen.checkpoint import Checkpoints
from jaxgen.data import batches
from jaxgen.evaluate import Gallery, evaluation_batches, evaluator
from jaxgen.experiment import Experiment
from jaxgen.interrupt import Interrupt, agreed
from jaxgen.log import JsonLines, Log, Silent, TensorBoard, Terminal
from jaxgen.objective import Generative, Watched
from jaxgen.parallel import rules
from jaxgen.parallel.activations import pinned
from jaxgen.parallel.mesh import check_batch, put_batch, replicated, rows_here
from jaxgen.parallel.processes import first
from jaxgen.program import program
from jaxgen.restored import averages
from jaxgen.run import Data, RunFolder
from jaxgen.typing import UserError

PREVIEW, POINTS = 8, 1024  # examples in a preview, if they are pictures, or points


def train(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    """Train, preview, checkpoint and evaluate; go on where an interrupted run stopped; return the final results.

    Raises UserError for what the user can mend, before any long work starts, and Interrupted after a signal,
    when the last finished step is saved.
    """
    mesh = experiment.mesh.build()
    check_batch(mesh, experiment.batch_size)
    train_set, test_set = experiment.train.source.open(), experiment.test.source.open()
    if train_set.classes != test_set.classes:
        raise UserError(
            f"training and test data differ in their classes: {train_set.classes[:4]}… and {test_set.classes[:4]}…"
        )
    data = Data(train_set.classes, batches.element(train_set, experiment.train.transforms))
    run = program(experiment, mesh, data.element)
    experiment.objective.check(run.spec, train_set.classes)
    if experiment.measures and not isinstance(experiment.objective, Generative):
        raise UserError(
            f"{type(experiment.objective).__name__} makes no samples to measure; remove the config's `measures`"
        )
    if experiment.snapshot_every and not any(
        isinstance(a, Power) for a in getattr(experiment.objective, "averages", ())
    ):
        raise UserError("--snapshot-every keeps averages for later; the objective's averages hold no Power(width=…)")
    moved = folder.claim(experiment, data)
    if first():
        folder.sharding.write_text("\n".join(rules.table(run.shapes)) + "\n")

    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        stopping = agreed(mesh, interrupt)
        stack.enter_context(jax.set_mesh(mesh))
        checkpoints = stack.enter_context(Checkpoints(folder.checkpoints, keep=experiment.keep))
        snapshots = stack.enter_context(Checkpoints(folder.snapshots, keep=None)) if experiment.snapshot_every else None
        damaged: list[str] = []
        warned: set[str] = set()  # each kind is said once
        found = checkpoints.restore_latest(run.shapes, damaged.append)
        start, state = found if found else (0, run.init())
        checkpoints.set_aside(newer_than=start)

        terminal: Terminal | Silent = Silent()
        logs: list[Log] = []
        if first():
            terminal = Terminal(experiment.steps, done=start)
            files = JsonLines(folder.metrics, resume_from=start), TensorBoard(folder.path, resume_from=start)
            logs = [terminal, *files]
        for log in logs:
            stack.callback(log.close)
        for line in damaged:
            terminal.say(f"warning: {line}")
        if start:
            terminal.say(f"going on from step {start} of {experiment.steps} in {folder.path}")
            for line in moved:
                terminal.say(f"note: laid out anew: {line}")

        def test(size: int) -> Iterator[dict[str, np.ndarray]]:
            return evaluation_batches(experiment.test, test_set, mesh, size)

        measure = evaluator(experiment.objective, mesh, experiment.seed, stopping)
        key = jax.random.key(experiment.seed)
        preview = jax.jit(
            pinned(mesh, lambda state, batch: experiment.objective.preview(state, batch, key)),
            out_shardings=replicated(mesh),
        )
        pictured = len(data.element["image"][0]) == 3
        shown = put_batch(mesh, next(iter(test(PREVIEW if pictured else POINTS))))
        feed = batches.train_batches(
            train_set,
            experiment.train.transforms,
            seed=experiment.seed,
            batch_size=experiment.batch_size,
            start=start,
            stop=experiment.steps,
            rows=rows_here(mesh, experiment.batch_size),
            workers=experiment.train.workers,
        )
        window = Window(experiment.batch_size)
        batch = put_batch(mesh, next(feed)) if start < experiment.steps else {}
        pending: Any = None

        # From here on, every copy between host and device is one that we asked for.
        stack.enter_context(jax.transfer_guard("disallow"))
        for step in range(start + 1, experiment.steps + 1):
            state, scalars = run.step(state, batch)
            if step < experiment.steps:
                with window.waiting():
                    rows = next(feed)
                batch = put_batch(mesh, rows)  # on its way while the device works
            if pending is not None:  # the step before, while this one runs
                window.add(step - 1, jax.device_get(pending))
            pending = scalars
            terminal.advance(step)

            last = step == experiment.steps
            stop = stopping()
            if last or stop or step % experiment.log_every == 0 or step % experiment.checkpoint_every == 0:
                # A checkpoint is only taken of a state whose loss and gradient have been seen to be finite.
                window.add(step, jax.device_get(pending))
                pending = None
            if last or step % experiment.log_every == 0:
                values = window.values()
                for log in logs:
                    log.write(step, "train", values)
                if isinstance(experiment.objective, Watched):
                    for kind, line in experiment.objective.warnings(values, step / experiment.steps).items():
                        if kind not in warned:
                            terminal.say(f"warning: {line}")
                        warned.add(kind)
            if last or stop or step % experiment.checkpoint_every == 0:
                checkpoints.save(step, state)
            if snapshots and step % experiment.snapshot_every == 0 and step not in snapshots.steps:
                snapshots.save(step, averages(state))
            if stop:
                checkpoints.close()
                interrupt.leave(step)
            if last or step % experiment.preview_every == 0:
                with window.paused():
                    seen = jax.device_get(preview(state, shown))
                    for name, shown_as in seen.items() if first() else ():
                        picture = pictures.draw(shown_as, test_set.classes)
                        pictures.save_png(folder.previews / f"step_{step:08}_{name}.png", picture)
                        for log in logs:
                            log.image(step, name, picture)
            if experiment.evaluate_every and step % experiment.evaluate_every == 0 and not last:
                with window.paused():
                    sums = measure(state, test(experiment.test_batch_size))
                if sums is None:
                    if step % experiment.checkpoint_every:
                        checkpoints.save(step, state)
                    checkpoints.close()
                    interrupt.leave(step)
                for log in logs:
                    log.write(step, "test", metrics.results(sums, test_set.classes))

        sums = measure(state, test(experiment.test_batch_size))
        if sums is None:
            checkpoints.close()
            interrupt.leave(experiment.steps)
        results = metrics.results(sums, test_set.classes)
        if experiment.measures:

            def leave() -> None:
                if stopping():
                    checkpoints.close()
                    interrupt.leave(experiment.steps)

            stack.enter_context(jax.transfer_guard("allow"))
            results |= Gallery(experiment, mesh, state, train_set, test_set, stop=leave).measure()
        for log in logs:
            log.write(experiment.steps, "test", results)
        for line in metrics.table(results):
            terminal.say(line)
        if first():
            write_results(folder, experiment.steps, results)
        return results


def write_results(folder: RunFolder, step: int, results: dict[str, Any]) -> None:
    """Write eval.json, whole or not at all."""
    fresh = folder.eval.with_suffix(".tmp")
    fresh.write_text(json.dumps({"step": step, "metrics": results}, indent=1) + "\n")
    fresh.replace(folder.eval)


class Diverged(UserError):
    """A loss or a gradient is not finite any more."""


class Window:
    """The steps since the last line of metrics: mean scalars, images/s, and the share of time spent on data."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._reset()

    def _reset(self) -> None:
        self._rows: list[dict[str, float]] = []
        self._begin = time.perf_counter()
        self._waited = self._away = 0.0

    def add(self, step: int, scalars: dict[str, np.ndarray]) -> None:
        """Take one step's scalars.

        Raises Diverged if one of them is not finite: nothing that follows could be of use.
        """
        row = {name: float(value) for name, value in scalars.items()}
        if wild := [name for name, value in row.items() if not math.isfinite(value)]:
            raise Diverged(
                f"{wild[-1]} is {row[wild[-1]]} at step {step}; the checkpoints before it are kept\n"
                "try a lower learning rate, a longer warm-up or an optimizer with clip=1.0, in a new run folder"
            )
        self._rows.append(row)

    def values(self) -> dict[str, float]:
        """Return the means since the last call, and begin anew."""
        spent = time.perf_counter() - self._begin - self._away
        means = {name: sum(row[name] for row in self._rows) / len(self._rows) for name in self._rows[0]}
        rates = {
            "images_per_second": len(self._rows) * self._batch_size / spent,
            "data_wait": self._waited / spent,
        }
        self._reset()
        return means | rates

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as spent waiting for data."""
        begin = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begin

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside out of the training's speed."""
        begin = time.perf_counter()
        yield
        self._away += time.perf_counter() - begin
