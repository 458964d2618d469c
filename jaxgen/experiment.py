"""An experiment is a value: it names real objects, prints, compares, and is kept as JSON with its results."""

import dataclasses
from typing import Any

from jaxgen.data.batches import Pipeline
from jaxgen.errors import UserError
from jaxgen.objective import Objective
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Replicated, Rule
from jaxgen.runs.divergence import Divergence, Stop
from jaxgen.runs.logs import JsonLines, TensorBoard, Terminal
from jaxgen.runs.report import Report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything that decides a training: what is learned, from what, for how long and on which devices."""

    objective: Any
    """What is learned, an `Objective`: nets, losses, optimizers."""
    train: Pipeline
    """The data to learn from."""
    test: Pipeline
    """The data to be measured on; never learned from."""
    steps: int
    """Number of updates."""
    batch_size: int
    """Examples in one update, over all devices."""
    metrics: tuple[Any, ...] = ()
    """What to measure of samples at the end, of `Metric`: Distribution, Modes, ClassAccuracy, Likelihood."""
    seed: int = 0
    """Decides the initial weights, the order of the data and every draw: same seed, same run."""
    test_batch_size: int = 64
    """Examples in one batch of an evaluation; does not change its result."""
    log_every: int = 20
    """Steps between lines of metrics."""
    evaluate_every: int = 0
    """Steps between evaluations; 0: only at the end."""
    preview_every: int = 100
    """Steps between previews; the first one comes with the first line of metrics."""
    checkpoint_every: int = 200
    """Steps between checkpoints; the last step always leaves one."""
    keep: int = 2
    """Number of latest checkpoints to keep."""
    snapshot_every: int = 0
    """Steps between snapshots of the EMAs, all kept, from which `--ema` makes EMAs of other lengths
    afterwards; 0: none."""
    mesh: MeshShape = MeshShape()
    """How the devices are laid out."""
    rule: Rule = Replicated()
    """Where parameters, optimizer state and EMAs lie on the mesh."""
    loggers: tuple[Any, ...] = (Terminal(), JsonLines(), TensorBoard(), Report())
    """Where metrics, previews and notes go, of `Logger`: Terminal, JsonLines, TensorBoard, Report, WandB, one's own."""
    divergence: Divergence = Stop()
    """What happens when a loss or a gradient is not finite any more."""
    watchdog: Any = None
    """What hears at each step that the run is alive, a `Watchdog`; None: nothing."""

    def __post_init__(self) -> None:
        for name, least in dict(
            steps=1, batch_size=1, test_batch_size=1, log_every=1, evaluate_every=0, preview_every=1,
            checkpoint_every=1, keep=1, snapshot_every=0, seed=0,
        ).items():  # fmt: skip
            if getattr(self, name) < least:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least {least}")
        if not isinstance(self.objective, Objective):
            members: set[str] = Objective.__protocol_attrs__  # pyrefly: ignore[missing-attribute]
            lacking = ", ".join(sorted(name for name in members if not hasattr(self.objective, name)))
            raise UserError(f"{type(self.objective).__name__} is not an Objective: it lacks {lacking}")
        if self.objective.microbatches < 1:
            raise UserError(f"--objective.microbatches is {self.objective.microbatches}; it must be at least 1")
        # One number, one place: an objective's schedules always span the experiment's steps.
        objective: Any = self.objective
        object.__setattr__(self, "objective", dataclasses.replace(objective, total_steps=self.steps))
