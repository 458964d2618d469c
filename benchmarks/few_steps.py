"""How good are samples in few evaluations? uv run benchmarks/few_steps.py RUN TUNED [--longer RUN] [--out FILE].

RUN is an EDM run such as runs/digits_edm, TUNED the consistency tuning of it, runs/digits_ect, and the run of
`--longer` was trained as long as the two together. Prints the Fréchet distance to the test split in the features of
jaxgen's digits classifier, `fd_digits_cnn`, for solvers and for consistency sampling at 1, 2, 4, 9, 18 and more
evaluations of the net.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

from quality import meter

from jaxgen.diffusion.multistep import UniPc
from jaxgen.diffusion.sampling_schedules import Given, Rho
from jaxgen.diffusion.solvers import Euler, Heun
from jaxgen.errors import UserError
from jaxgen.objectives.consistency import ConsistencyTuning
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore

# Steps of the sampling schedule: Heun takes two evaluations for each but the last.
SOLVERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "Euler (= DDIM)": (Euler(), (1, 2, 4, 9, 18)),
    "Heun": (Heun(), (1, 2, 5, 9, 18)),
    "UniPC 3": (UniPc(order=3), (1, 2, 4, 9, 18)),
}
Row = dict[str, Any]


def of_solvers(path: pathlib.Path, n: int, suffix: str) -> tuple[list[Row], float]:
    """Return a row for each solver and number of evaluations, and the distance of the train split."""
    run = restore(RunFolder(path), None, print)
    objective: Any = run.experiment.objective
    if not isinstance(objective, Diffusion) or not isinstance(objective.sampling.schedule, Rho):
        raise UserError(f"{path} is no EDM run; give one such as runs/digits_edm")
    distance, baseline = meter(run, n)
    rows = []
    for name, (solver, numbers) in SOLVERS.items():
        for steps in numbers:
            schedule = dataclasses.replace(objective.sampling.schedule, steps=steps)
            rows.append(
                measured(name + suffix, distance, objective.with_options({"solver": solver, "schedule": schedule}))
            )
    return rows, baseline


def of_tuned(path: pathlib.Path, n: int) -> list[Row]:
    """Return a row for each number of evaluations: from the most noise at once, from there by the levels between."""
    run = restore(RunFolder(path), None, print)
    objective: Any = run.experiment.objective
    if not isinstance(objective, ConsistencyTuning):
        raise UserError(f"{path} is no consistency tuning; give one such as runs/digits_ect")
    most, *between = objective.schedule.sigmas(objective.path)[:-1].tolist()
    middle = between[0] if between else 0.8
    schedules = [(most, 0.0), (most, middle, 0.0), (most, 3 * middle, middle, middle / 3, 0.0)]
    distance, _ = meter(run, n)
    return [measured("tuned", distance, objective.with_options({"schedule": Given(levels=s)})) for s in schedules]


def measured(name: str, distance: Any, objective: Any) -> Row:
    """Return one row, and print it while the others are waited for."""
    row = {"name": name, "nfe": objective.protocol()["nfe"], "fd": distance(objective)}
    print(f"{name:<24} {row['nfe']:>4} evaluations  fd_digits_cnn {row['fd']:.3f}", file=sys.stderr)
    return row


def draw(rows: list[Row], baseline: float, out: pathlib.Path) -> None:
    """Plot the distance over the number of evaluations."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7, 4.5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(SOLVERS, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    for name in dict.fromkeys(row["name"] for row in rows):
        points = [(row["nfe"], row["fd"]) for row in rows if row["name"] == name]
        solver, _, longer = name.partition(", ")
        look: dict[str, Any] = {"color": colours.get(solver, "tab:red"), "linestyle": ":" if longer else "-"}
        axes.plot(*zip(*points, strict=True), marker="o", linewidth=2.5 if name == "tuned" else 1.2, label=name, **look)
    axes.axhline(baseline, color="black", linestyle="--", label="train split (baseline)")
    axes.set(xscale="log", yscale="log", xlabel="evaluations of the net", ylabel="fd_digits_cnn")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    figure.savefig(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN")
    parser.add_argument("tuned", type=pathlib.Path, metavar="TUNED")
    parser.add_argument("--longer", type=pathlib.Path, metavar="RUN", help="a run trained as long as the two together")
    parser.add_argument("--n", type=int, default=1437, help="samples for each number")
    parser.add_argument("--out", type=pathlib.Path, help="a plot")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    try:
        rows = of_tuned(args.tuned, args.n)
        of_run, baseline = of_solvers(args.run, args.n, "")
        rows += of_run + (of_solvers(args.longer, args.n, ", longer")[0] if args.longer else [])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        draw(rows, baseline, args.out)
    if args.json:
        print(json.dumps({"samples": args.n, "baseline": baseline, "rows": rows}))
        return 0
    print(f"fd_digits_cnn of {args.n} samples against the test split; the train split: {baseline:.3f}")
    for name in dict.fromkeys(row["name"] for row in rows):
        cells = [f"{row['fd']:.3f} ({row['nfe']})" for row in rows if row["name"] == name]
        print(f"{name:<24}" + "".join(f"{cell:>14}" for cell in cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
