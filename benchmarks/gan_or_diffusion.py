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
from jaxgen.cli import use_compilation_cache
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
from jaxgen.metrics.distribution import Distribution
from jaxgen.models.mlp import MlpDenoiser
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant, Cosine

# The data's standard deviation, the levels of noise that decide what is made, and a size of net and batch with which
# diffusion learns quickly.
DATA: dict[str, dict[str, Any]] = {
    "grid25": {"sigma_data": 2.83, "levels": LogNormal(mean=-1.2, std=1.6), "width": 128, "batch": 256},
    "stacked_digits": {"sigma_data": 0.8, "levels": LogNormal(mean=-0.7, std=1.0), "width": 256, "batch": 128},
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
    made = files.load(pathlib.Path("configs/gan") / f"{name}.py")
    # Fewer real examples than samples would make recall easy.
    samples = 2500
    made = dataclasses.replace(made, metrics=(*made.measures, Distribution(features=Pixels(), samples=samples)))
    gan: Any = made.objective
    old = Optimizer(learning_rate=Constant(value=2e-4), method=Adam(b1=0.5, b2=0.999))
    plain = dataclasses.replace(
        gan, loss=NonSaturating(), penalties=(), generator_optimizer=old, discriminator_optimizer=old
    )
    about = DATA[name]
    diffusion = Diffusion(
        net=MlpDenoiser(width=about["width"], depth=4),
        optimizer=Optimizer(learning_rate=Cosine(peak=2e-3), clip=1.0),
        path=Edm(),
        prediction=EdmPreconditioning(sigma_data=about["sigma_data"]),
        noise_distribution=LowDiscrepancy(distribution=about["levels"]),
        sampling=Sampling(solver=Heun(), schedule=Rho(steps=18)),
        averages=(HalfLifeEma(steps=500.0),),
    )
    rows = made.batch_size // gan.parts
    return {
        "GAN (R3GAN's game)": made,
        "GAN (of 2014)": dataclasses.replace(made, objective=plain, batch_size=rows),
        "diffusion (EDM)": dataclasses.replace(made, objective=diffusion, batch_size=about["batch"]),
    }


def draw(found: dict[str, dict[str, list[seeds.Results]]], out: pathlib.Path) -> None:
    """Plot each number over the contestants, a point for each seed."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(11, 2.8 * len(found)), dpi=120, layout="constrained")
    grid = figure.subplots(len(found), 4, squeeze=False)
    for axes, (name, rows) in zip(grid, found.items(), strict=True):
        for axis, column in zip(axes, PLOTTED[name], strict=True):
            for i, results in enumerate(rows.values()):
                values = [row[column] for row in results if column in row]
                axis.plot([i] * len(values), values, "o", alpha=0.6)
            if column == "kl":
                axis.set_yscale("log")
            axis.set(title=f"{name}: {column}", xlim=(-0.5, len(rows) - 0.5))
            axis.set_xticks(range(len(rows)), [contestant.replace(" (", "\n(") for contestant in rows], fontsize=7)
            axis.grid(alpha=0.3)
    figure.savefig(out)


def compare(names: Sequence[str], given: argparse.Namespace) -> dict[str, dict[str, list[seeds.Results]]]:
    found = {}
    for name in names:
        rows = {}
        for contestant, experiment in contestants(name).items():
            timed = seeds.for_seconds(experiment, given.seconds)
            rows[contestant] = seeds.over_seeds(f"{name}, {contestant}, {timed.steps} steps", timed, given.seeds)
        found[name] = rows
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=tuple(DATA), default=tuple(DATA))
    parser.add_argument("--seconds", type=float, default=90.0, help="of each training's steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2, 3, 4))
    parser.add_argument("--out", type=pathlib.Path, help="a plot")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    use_compilation_cache()
    try:
        found = compare(given.data, given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if given.out:
        draw(found, given.out)
    if given.json:
        print(json.dumps({"seconds": given.seconds, "seeds": list(given.seeds), "data": found}))
        return 0
    for name, rows in found.items():
        print(f"{name}: {given.seconds:.0f} s of training each, seeds {', '.join(map(str, given.seeds))}")
        print(*seeds.table(rows, COLUMNS[name]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
