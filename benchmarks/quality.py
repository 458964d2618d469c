"""How good samples are at how many evaluations: uv run benchmarks/quality.py RUN [--out FILE] [--steps S…] [--json].

Draws samples of a trained EDM run by every deterministic solver and some stochastic ones, on sampling schedules of
more and more steps, and prints the Fréchet distance to the test split in the features of jaxgen's digits classifier,
`fd_digits_cnn`, and what the train split scores. Schedules that a solver refuses are left out.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from jaxgen.diffusion.multistep import Dpm2M, Dpm2MSde, Dpm3M, UniPc
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Euler, Heun
from jaxgen.diffusion.stochastic import Ancestral, Ddim, EulerMaruyama
from jaxgen.errors import UserError
from jaxgen.evaluation import SampleEvaluator
from jaxgen.features.digits_cnn import DigitsCnn
from jaxgen.metrics import fidelity
from jaxgen.metrics.view import as_shown
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore

SOLVERS: dict[str, Any] = {
    "Euler (= DDIM)": Euler(),
    "Heun": Heun(),
    "Heun, churn 10": Heun(churn=10.0),
    "DPM++ 2M": Dpm2M(),
    "DPM++ 2M SDE": Dpm2MSde(),
    "DPM++ 3M": Dpm3M(),
    "UniPC 3": UniPc(order=3),
    "DDIM, eta 1": Ddim(eta=1.0),
    "DDPM ancestral": Ancestral(),
    "Euler-Maruyama": EulerMaruyama(),
}


def meter(run: Restored, n: int) -> tuple[Callable[[Any], float], float]:
    """Return what measures n samples, drawn as an objective says, of a run's nets; and the train split's distance."""
    experiment = run.experiment
    train_set, test_set = experiment.train.source.open(), experiment.test.source.open()
    extract = DigitsCnn().extractor()

    def view(objective: Any) -> SampleEvaluator:
        changed = run.with_experiment(dataclasses.replace(experiment, objective=objective))
        return SampleEvaluator(changed.program, run.state, train_set, test_set)

    first = view(experiment.objective)
    real = first.map(extract, as_shown(first.rows("test").image))
    train = first.rows("train").image[:n]

    def distance(objective: Any) -> float:
        own = view(objective)
        return fidelity.frechet_distance(real, own.map(extract, as_shown(own.samples(n).image)))

    return distance, fidelity.frechet_distance(real, first.map(extract, as_shown(train)))


def curve(run: Restored, n: int, steps: Sequence[int]) -> tuple[list[dict[str, Any]], float]:
    """Return a row for each solver and sampling schedule, and the distance of the train split."""
    objective: Any = run.experiment.objective
    if not isinstance(objective, Diffusion) or not isinstance(objective.sampling.schedule, Rho):
        raise UserError("this compares solvers on EDM's sampling schedules; give it a run such as runs/digits_edm")
    rows = []
    distance, baseline = meter(run, n)
    for name, solver in SOLVERS.items():
        for number in steps:
            schedule = dataclasses.replace(objective.sampling.schedule, steps=number)
            try:
                changed = objective.with_options({"solver": solver, "schedule": schedule})
                changed.check_sampling(guide=False)
            except UserError:
                continue
            nfe = changed.protocol()["nfe"]
            rows.append({"solver": name, "steps": number, "nfe": nfe, "fd": distance(changed)})
            print(f"{name:<16} {number:>4} steps {nfe:>4} NFE  fd_digits_cnn {rows[-1]['fd']:.3f}", file=sys.stderr)
    return rows, baseline


def draw(rows: list[dict[str, Any]], baseline: float, out: pathlib.Path) -> None:
    """Plot the distance over the number of evaluations."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name in SOLVERS:
        points = [(row["nfe"], row["fd"]) for row in rows if row["solver"] == name]
        axes.plot(*zip(*points, strict=True), "o-", label=name)
    axes.axhline(baseline, color="black", linestyle="--", label="train split (baseline)")
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the net", ylabel="fd_digits_cnn")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--n", type=int, default=1437, help="samples for each number")
    parser.add_argument("--steps", type=int, nargs="+", default=(3, 5, 9, 18, 36))
    parser.add_argument("--out", type=pathlib.Path, help="a plot")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    try:
        rows, baseline = curve(restore(RunFolder(args.run), None, print), args.n, args.steps)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        draw(rows, baseline, args.out)
    if args.json:
        print(json.dumps({"samples": args.n, "baseline": baseline, "rows": rows}))
        return 0
    print(f"fd_digits_cnn of {args.n} samples against the test split; the train split: {baseline:.3f}")
    print(f"{'solver':<18}" + "".join(f"{f'{s} steps':>16}" for s in args.steps))
    for name in SOLVERS:
        found = {row["steps"]: row for row in rows if row["solver"] == name}
        cells = [f"{found[s]['fd']:.3f} ({found[s]['nfe']})" if s in found else "-" for s in args.steps]
        print(f"{name:<18}" + "".join(f"{cell:>16}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
