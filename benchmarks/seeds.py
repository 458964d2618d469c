"""Experiments over several seeds, each trained in a folder of its own, and their results as a table."""

import contextlib
import dataclasses
import io
import json
import pathlib
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from jaxgen import loop
from jaxgen.experiment import Experiment
from jaxgen.runs.divergence import Diverged
from jaxgen.runs.folder import RunFolder

Results = dict[str, float]


def over_seeds(name: str, experiment: Experiment, seeds: Sequence[int]) -> list[Results]:
    """Train and measure the experiment with each seed; a training that diverges gives `diverged` and no numbers."""
    runs = []
    for seed in seeds:
        runs.append(once(dataclasses.replace(experiment, seed=seed)))
        shown = "  ".join(f"{k} {v:.4g}" for k, v in runs[-1].items() if k in ("modes", "kl", "recall", "seconds"))
        print(f"{name}, seed {seed}: {shown or 'diverged'}", file=sys.stderr)
    return runs


def once(experiment: Experiment) -> Results:
    """Train and measure once; `seconds` is the time of the training's steps, without compiling and measuring."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxgen-benchmark-"))
    # Logs, previews and checkpoints cost time, and nobody looks at them.
    quiet = dataclasses.replace(
        experiment,
        log_every=max(1, experiment.steps // 10),
        preview_every=experiment.steps,
        checkpoint_every=experiment.steps,
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            results = loop.train(quiet, RunFolder(folder / "run"))
        return {k: float(v) for k, v in results.items() if isinstance(v, int | float)} | {
            "seconds": _seconds(folder / "run" / "metrics.jsonl", experiment.batch_size)
        }
    except Diverged:
        return {"diverged": 1.0}
    finally:
        shutil.rmtree(folder)


def for_seconds(experiment: Experiment, seconds: float, trial: int = 400) -> Experiment:
    """Return the experiment with as many steps as this machine makes in so many seconds, by a short trial.

    The trial's first half, in which everything is compiled, does not count.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxgen-benchmark-"))
    short = dataclasses.replace(
        experiment, steps=trial, metrics=(), log_every=trial // 2, preview_every=trial, checkpoint_every=trial
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            loop.train(short, RunFolder(folder / "run"))
        rates = [row["images_per_second"] for row in _rows(folder / "run" / "metrics.jsonl")]
    finally:
        shutil.rmtree(folder)
    return dataclasses.replace(experiment, steps=max(1, round(seconds * rates[-1] / experiment.batch_size)))


def table(rows: dict[str, list[Results]], columns: Sequence[str]) -> list[str]:
    """Return lines of a table: mean ± standard deviation over the seeds, and how many of them diverged."""
    wide = max(map(len, rows)) + 2
    lines = [f"{'':<{wide}}" + "".join(f"{name:>18}" for name in (*columns, "diverged"))]
    for name, runs in rows.items():
        cells = []
        for column in columns:
            values = [row[column] for row in runs if column in row]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.4g} ± {spread:.2g}" if values else "-")
        diverged = sum("diverged" in row for row in runs)
        lines.append(f"{name:<{wide}}" + "".join(f"{cell:>18}" for cell in (*cells, f"{diverged} of {len(runs)}")))
    return lines


def _seconds(path: pathlib.Path, batch_size: int) -> float:
    """Return what a training's steps took, from its log's speeds; the first part, with its compiling, is left out.

    It is taken to have been as fast as the others.
    """
    rows = _rows(path)
    steps = [0, *(row["step"] for row in rows)]
    spent = [
        (b - a) * batch_size / row["images_per_second"] for a, b, row in zip(steps[:-1], steps[1:], rows, strict=True)
    ]
    later = sum(spent[1:])
    return later * steps[-1] / (steps[-1] - steps[1]) if len(rows) > 1 else spent[0]


def _rows(path: pathlib.Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [row for row in rows if row["split"] == "train"]
