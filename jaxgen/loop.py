"""The loop: mesh, shapes, shardings, state, restore, step, step, step. It knows objectives, never tasks."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxgen.data import batches
from jaxgen.errors import UserError
from jaxgen.evaluation import SampleEvaluator, evaluation_batches, evaluator
from jaxgen.experiment import Experiment
from jaxgen.metrics import accumulators
from jaxgen.objective import Generative, Watched
from jaxgen.optim.ema import PowerEma
from jaxgen.parallel import rules
from jaxgen.parallel.activations import constrained
from jaxgen.parallel.mesh import check_batch, process_rows, put_batch, replicated
from jaxgen.parallel.processes import any_process, is_main_process
from jaxgen.pictures import sheet
from jaxgen.program import program
from jaxgen.runs.checkpoints import Checkpoints
from jaxgen.runs.folder import Data, RunFolder, write_results
from jaxgen.runs.logs import JsonLines, Log, Silent, TensorBoard, Terminal
from jaxgen.runs.meter import Meter
from jaxgen.runs.restore import averages
from jaxgen.runs.signals import Interrupt

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
        isinstance(a, PowerEma) for a in getattr(experiment.objective, "averages", ())
    ):
        raise UserError("--snapshot-every keeps averages for later; the objective's averages hold no Power(width=…)")
    moved = folder.claim(experiment, data)
    if is_main_process():
        folder.sharding.write_text("\n".join(rules.table(run.shapes)) + "\n")

    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        stopping = any_process(mesh, interrupt)
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
        if is_main_process():
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
            constrained(mesh, lambda state, batch: experiment.objective.preview(state, batch, key)),
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
            rows=process_rows(mesh, experiment.batch_size),
            workers=experiment.train.workers,
        )
        window = Meter(experiment.batch_size)
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
                    for name, shown_as in seen.items() if is_main_process() else ():
                        picture = sheet.draw(shown_as, test_set.classes)
                        sheet.save_png(folder.previews / f"step_{step:08}_{name}.png", picture)
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
                    log.write(step, "test", accumulators.results(sums, test_set.classes))

        sums = measure(state, test(experiment.test_batch_size))
        if sums is None:
            checkpoints.close()
            interrupt.leave(experiment.steps)
        results = accumulators.results(sums, test_set.classes)
        if experiment.measures:

            def leave() -> None:
                if stopping():
                    checkpoints.close()
                    interrupt.leave(experiment.steps)

            stack.enter_context(jax.transfer_guard("allow"))
            results |= SampleEvaluator(experiment, mesh, state, train_set, test_set, stop=leave).measure()
        for log in logs:
            log.write(experiment.steps, "test", results)
        for line in accumulators.table(results):
            terminal.say(line)
        if is_main_process():
            write_results(folder, experiment.steps, results)
        return results
