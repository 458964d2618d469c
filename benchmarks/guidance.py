"""What guidance does to a text-to-image run: uv run benchmarks/guidance.py RUN [--scales S…] [--out FILE] [--json].

Measures the run's own metrics of samples at each scale of classifier-free guidance, 0 (no text) among them, and how
varied the samples are: the mean squared difference of two samples for one text, in shares of that of two real pictures.
With `--steps` also at each number of steps of its sampling schedule, and with `--solvers` by each of these. The picture
has a row of samples for each scale, the same texts and the same noise in all.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgen.config.expression import parse_options
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.errors import UserError
from jaxgen.evaluation import SampleEvaluator
from jaxgen.metrics.view import as_shown
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore
from jaxgen.sampling import asked, draw

SHOWN = 12  # samples in a row of the picture
Row = dict[str, Any]


def measured(run: Restored, objective: Diffusion) -> tuple[Row, np.ndarray]:
    """Return the numbers of a way to draw samples, and the first samples."""
    changed = run.with_experiment(dataclasses.replace(run.experiment, objective=objective))
    train_set, test_set = run.experiment.train.source.open(), run.experiment.test.source.open()
    view = SampleEvaluator(changed.program, run.state, train_set, test_set)
    numbers = {name: x for name, x in view.measure().items() if isinstance(x, float)}
    n = min(len(test_set), 96)
    first = as_shown(view.samples(n).image)
    # The same texts and other noise.
    condition = asked(changed.program, np.arange(n), lambda: test_set)
    second = as_shown(draw(changed.program, run.state, n + np.arange(n), condition=condition))
    real = as_shown(view.rows("test").image[:n])
    apart = np.square(first - second).mean() / np.square(real - np.roll(real, 1, axis=0)).mean()
    return numbers | {"variety": float(apart), "nfe": objective.protocol()["nfe"]}, first[:SHOWN]


def ways(objective: Diffusion, args: argparse.Namespace) -> list[tuple[str, Diffusion]]:
    """Return the ways to draw samples that are compared, by name."""
    found = []
    for scale in args.scales:
        found.append((f"guidance {scale:g}", objective.with_options({"guidance": ClassifierFree(scale=scale)})))
    for steps in args.steps:
        schedule: Any = objective.sampling.schedule
        found.append(
            (f"{steps} steps", objective.with_options({"schedule": dataclasses.replace(schedule, steps=steps)}))
        )
    for text in args.solvers:
        found.append((text, objective.with_options(parse_options({"solver": text}))))
    return found


def picture(samples: Sequence[np.ndarray], names: Sequence[str], out: pathlib.Path) -> None:
    """Draw a row of samples for each way to draw them."""
    sheet.save(out, sheet.sheet(Panels(images=np.stack(samples), titles=tuple(names)), ()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--scales", type=float, nargs="+", default=(0.0, 1.0, 2.0, 3.0, 5.0, 8.0))
    parser.add_argument("--steps", type=int, nargs="+", default=())
    parser.add_argument("--solvers", nargs="+", default=(), metavar="VALUE", help="such as 'UniPc()'")
    parser.add_argument("--out", type=pathlib.Path, help="a picture of the samples")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    rows, samples = {}, []
    try:
        run = restore(RunFolder(args.run), None, lambda line: print(line, file=sys.stderr))
        objective = run.experiment.objective
        if not isinstance(objective, Diffusion) or not objective.text:
            raise UserError(f"{args.run} is no text-to-image run; give one such as runs/emoji_unet")
        for name, way in ways(objective, args):
            rows[name], first = measured(run, way)
            samples.append(first)
            told = "  ".join(f"{k} {v:.3g}" for k, v in rows[name].items())
            print(f"{name}  {told}", file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        picture(samples, list(rows), args.out)
    if args.json:
        print(json.dumps(rows))
        return 0
    columns = list(next(iter(rows.values())))
    print(f"{'':<14}" + "".join(f"{name:>27}" for name in columns))
    for name, row in rows.items():
        print(f"{name:<14}" + "".join(f"{row[column]:>27.3g}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
