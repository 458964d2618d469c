"""The loop: mesh, shapes, shardings, state, restore, step, step, step. It knows objectives, never tasks."""

from typing import Any

from jaxgen.experiment import Experiment
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.session import Session


def train(experiment: Experiment, folder: RunFolder) -> dict[str, Any]:
    """Train, preview, checkpoint and evaluate; go on where an interrupted run stopped; return the final results.

    Raises UserError for what the user can fix, before any long work starts, and Interrupted after a signal, when the
    last finished step is saved.
    """
    with Session.open(experiment, folder) as session:
        state = session.state
        for step, batch in session.batches():
            state, scalars = session.program.step(state, batch)
            state = session.observe(step, state, scalars)
            session.save(step, state)
            session.leave_if_asked()
            session.preview(step, state)
            session.evaluate(step, state)
        return session.finish(state)
