"""Is diffusion more stable than a GAN, and does it collapse less? uv run benchmarks/gan_or_diffusion.py [--out FILE].

Trains both on the same data (25 Gaussians in the plane; stacked digits, 1,000 modes) for the same wall time on the same
machine, with nets of the same kind (layers without convolutions), over several seeds, and measures the samples alike.
The GAN is R3GAN's game as in configs/gan/{grid25,stacked_digits}.py, and the old game (arXiv:1406.2661) with the same
nets; diffusion is EDM with 18 steps of Heun, 35 evaluations of its net for a sample where the GANs take one.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import seeds

from jaxgen.adversarial.losses import NonSaturating
from jaxgen.config import files
from jaxgen.diffusion.noise_distributions import LogNormal, LowDiscrepancy
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import EdmPreconditioning
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Heun
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.features.pixels import Pixels
from jaxgen.learner import Learner
from jaxgen.metrics.distribution import Distribution
from jaxgen.models.mlp import MlpDenoiser
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant, Cosine
from jaxgen.parallel.processes import use_compilation_cache

# The data's standard deviation, the noise levels that matter most, and a size of net and batch with which diffusion
# learns quickly.
DATA: dict[str, dict[str, Any]] = {
    "grid25": {"sigma_data": 2.83, "noise_distribution": LogNormal(mean=-1.2, std=1.6), "width": 128, "batch": 256},
    "stacked_digits": {
        "sigma_data": 0.8,
        "noise_distribution": LogNormal(mean=-0.7, std=1.0),
        "width": 256,
        "batch": 128,
    },
}
COLUMNS = {
    "grid25": ("modes", "high_quality", "std_ratio", "kl", "recall", "precision", "seconds"),
    "stacked_digits": ("modes", "kl", "recall", "precision", "seconds"),
}

PLOTTED = {
    "grid25": ("modes", "high_quality", "kl", "recall"),
    "stacked_digits": ("modes", "kl", "recall", "precision"),
}


def contestants(name: str) -> dict[str, Experiment]:
    """Return the experiments of one data set, of no particular length."""
    experiment = files.load(pathlib.Path("configs/gan") / f"{name}.py")
    # Fewer real examples than samples would make recall easy.
    samples = 2500
    metrics = (*experiment.metrics, Distribution(features=Pixels(), samples=samples))
    experiment = dataclasses.replace(experiment, metrics=metrics)
    gan: Any = experiment.objective
    old = Optimizer(learning_rate=Constant(value=2e-4), method=Adam(b1=0.5, b2=0.999))
    plain = dataclasses.replace(
        gan,
        generator=dataclasses.replace(gan.generator, optimizer=old),
        discriminator=dataclasses.replace(gan.discriminator, optimizer=old),
        loss=NonSaturating(),
        penalties=(),
    )
    about = DATA[name]
    diffusion = Diffusion(
        net=Learner(
            module=MlpDenoiser(width=about["width"], depth=4),
            optimizer=Optimizer(learning_rate=Cosine(peak=2e-3), clip=1.0),
            ema=(HalfLifeEma(steps=500.0),),
        ),
        path=Edm(),
        prediction=EdmPreconditioning(sigma_data=about["sigma_data"]),
        noise_distribution=LowDiscrepancy(distribution=about["noise_distribution"]),
        sampling=Sampling(solver=Heun(), schedule=Rho(steps=18)),
    )
    rows = experiment.batch_size // gan.batch_parts
    return {
        "GAN (R3GAN's game)": experiment,
        "GAN (of 2014)": dataclasses.replace(experiment, objective=plain, batch_size=rows),
        "diffusion (EDM)": dataclasses.replace(experiment, objective=diffusion, batch_size=about["batch"]),
    }


def draw(results: dict[str, dict[str, list[seeds.Results]]], out: pathlib.Path) -> None:
    """Plot each number over the contestants, a point for each seed."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 2.8 * len(results)), dpi=120, layout="constrained")
    grid = figure.subplots(len(results), 4, squeeze=False)
    for axes, (name, rows) in zip(grid, results.items(), strict=True):
        for axis, column in zip(axes, PLOTTED[name], strict=True):
            for i, runs in enumerate(rows.values()):
                values = [row[column] for row in runs if column in row]
                axis.plot([i] * len(values), values, "o", alpha=0.6)
            if column == "kl":
                axis.set_yscale("log")
            axis.set(title=f"{name}: {column}", xlim=(-0.5, len(rows) - 0.5))
            axis.set_xticks(range(len(rows)), [contestant.replace(" (", "\n(") for contestant in rows], fontsize=7)
            axis.grid(alpha=0.3)
    figure.savefig(out)


def compare(names: Sequence[str], args: argparse.Namespace) -> dict[str, dict[str, list[seeds.Results]]]:
    results = {}
    for name in names:
        rows = {}
        for contestant, experiment in contestants(name).items():
            timed = seeds.for_seconds(experiment, args.seconds)
            rows[contestant] = seeds.over_seeds(f"{name}, {contestant}, {timed.steps} steps", timed, args.seeds)
        results[name] = rows
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=tuple(DATA))
    parser.add_argument("--seconds", type=float, default=90.0, help="of each training's steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4))
    parser.add_argument("--out", type=pathlib.Path, help="a plot")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    try:
        results = compare(args.data, args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        draw(results, args.out)
    if args.json:
        print(json.dumps({"seconds": args.seconds, "seeds": list(args.seeds), "data": results}))
        return 0
    for name, rows in results.items():
        print(f"{name}: {args.seconds:.0f} s of training each, seeds {', '.join(map(str, args.seeds))}")
        print(*seeds.table(rows, COLUMNS[name]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
