"""How fast solvers converge: uv run benchmarks/convergence.py [--out convergence.png] [--json].

Prints for each solver the order that it states and the slopes that are measured in float64 between the finest
schedules: on a Gaussian, on a mixture of three, and on each with classifier-free guidance of scale 2. The plot shows
error over calls of the net, so that the cost of a step is seen too.
"""

import argparse
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib import pyplot as plt

from jaxgen.diffusion.denoiser import Denoise
from jaxgen.diffusion.flow import FlowHeun, FlowMidpoint
from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.guidance import ClassifierFree, guide
from jaxgen.diffusion.multistep import Dpm2M, Dpm3M, UniPc
from jaxgen.diffusion.path import Edm, Flow
from jaxgen.diffusion.sampling_schedules import Rho, UniformTime
from jaxgen.diffusion.solvers import Euler, Heun, Solver, sample, start
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.typing import Condition

matplotlib.use("Agg")  # draws without a screen

STEPS = (16, 32, 64, 128, 256)
SAMPLES = 256
SOLVERS: dict[str, Solver] = {
    "Euler": Euler(),
    "Ddim": Ddim(),
    "Heun": Heun(),
    "Dpm2M": Dpm2M(),
    "UniPc 2": UniPc(order=2),
    "UniPc 3": UniPc(order=3),
    "Dpm3M": Dpm3M(),
    "FlowMidpoint": FlowMidpoint(),
    "FlowHeun": FlowHeun(),
}
GAUSSIAN = GaussianMixture(means=((0.3, -0.2),), stds=(0.5,))
MIXTURE = GaussianMixture(means=((-1.0, 0.0), (0.5, 0.8), (0.7, -0.9)), stds=(0.3, 0.4, 0.5), weights=(1.0, 2.0, 1.0))


def gaussians(x: Any, sigma: Any, condition: Condition) -> Any:
    """Class 0 and null are Gaussians of one width; the two columns between them are not used."""
    means = jnp.asarray([[0.3, -0.2], [0.0, 0.0], [0.0, 0.0], [-0.4, 0.5]], x.dtype)
    mean = (condition["label"][:, :, None] * means[None]).sum(1)
    return mean + (x - mean) / (1 + (sigma / 0.5) ** 2)


def guided(net: Callable[[Any, Any, Any], Any]) -> Denoise:
    """Guide every third sample to each class of the mixture, or all to the Gaussian's one class."""
    classes = jnp.zeros(SAMPLES, int) if net is gaussians else jnp.arange(SAMPLES) % 3
    keys = jax.random.split(jax.random.key(0), SAMPLES)
    condition = {"label": jax.nn.one_hot(classes, 4, dtype=jnp.float64)}
    bound = guide(ClassifierFree(scale=2.0), net, condition, keys)
    return lambda x, sigma: bound.step(x, sigma, ())[0]


def schedule(solver: Solver, steps: int) -> np.ndarray:
    """From pure noise to 0 in time, or from 80 to 0.002: in sigma a last step to 0 would be of order 1."""
    if isinstance(solver, FlowMidpoint | FlowHeun):
        return UniformTime(steps=steps).sigmas(Flow())
    return Rho(steps=steps, to_zero=False).sigmas(Edm())


def solve(solver: Solver, denoise: Denoise, sigmas: np.ndarray) -> np.ndarray:
    x = start(jnp.asarray(np.random.RandomState(0).standard_normal((SAMPLES, 2))), sigmas)
    keys = jax.random.split(jax.random.key(0), SAMPLES)
    return np.asarray(jax.jit(lambda x: sample(solver, denoise, sigmas, x, keys))(x))


def measure() -> list[dict[str, Any]]:
    """Return a row for each solver and problem: its calls, errors (root mean square) and last slope."""
    problems = {
        "Gaussian": GAUSSIAN.denoise,
        "Gaussian, guided": guided(gaussians),
        "mixture": MIXTURE.denoise,
        "mixture, guided": guided(MIXTURE.denoise_labelled),
    }
    rows = []
    for problem, denoise in problems.items():
        exact = {
            flow: solve(fine, denoise, schedule(fine, steps))
            for flow, fine, steps in ((False, UniPc(order=3), 1000), (True, FlowHeun(), 4000))
        }
        for name, solver in SOLVERS.items():
            schedules = [schedule(solver, steps) for steps in STEPS]
            against = exact[isinstance(solver, FlowMidpoint | FlowHeun)]
            errors = [float(np.sqrt(((solve(solver, denoise, sigmas) - against) ** 2).mean())) for sigmas in schedules]
            calls = [len(levels) for sigmas in schedules if (levels := solver.levels(sigmas)) is not None]
            slope = math.log2(errors[-2] / errors[-1])
            rows.append(
                {
                    "problem": problem,
                    "solver": name,
                    "order": solver.order,
                    "calls": calls,
                    "errors": errors,
                    "slope": slope,
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> list[str]:
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    lines = [f"{'solver':<14}{'order':>6}" + "".join(f"{problem:>18}" for problem in problems)]
    for name, solver in SOLVERS.items():
        slopes = [row["slope"] for row in rows if row["solver"] == name]
        lines.append(f"{name:<14}{solver.order:>6}" + "".join(f"{slope:>18.2f}" for slope in slopes))
    return lines


def plot(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    problems = list(dict.fromkeys(row["problem"] for row in rows))
    colours = dict(zip(SOLVERS, plt.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    figure, axes = plt.subplots(1, len(problems), figsize=(4 * len(problems), 4.6), sharey=True, layout="constrained")
    for axis, problem in zip(axes, problems, strict=True):
        for row in rows:
            if row["problem"] == problem:
                # Ddim is Euler: dots on its line.
                style = "o" if row["solver"] == "Ddim" else ".-"
                fill = "none" if row["solver"] == "Ddim" else None
                axis.loglog(
                    row["calls"],
                    row["errors"],
                    style,
                    color=colours[row["solver"]],
                    label=row["solver"],
                    markerfacecolor=fill,
                )
        calls = np.asarray([64.0, 256.0])
        for order, height in ((1, 0.12), (2, 0.012), (3, 6e-4), (4, 4e-5)):
            axis.loglog(calls, height * (calls / calls[0]) ** -order, ":", color="0.6", linewidth=1)
            axis.text(calls[1], height * (calls[1] / calls[0]) ** -order, f" order {order}", color="0.5", va="center")
        axis.set_title(problem)
        axis.set_xlabel("calls of the net")
        axis.set_ylim(1e-7, 0.3)
        axis.set_xticks(STEPS, STEPS)
        axis.minorticks_off()
        axis.grid(which="major", alpha=0.3)
    axes[0].set_ylabel("root mean square error")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SOLVERS), frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("convergence.png"), help="where the plot goes")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON instead of the table")
    options = parser.parse_args()
    with jax.enable_x64(True):
        rows = measure()
    print(json.dumps(rows, indent=1) if options.json else "\n".join(table(rows)))
    plot(rows, options.out)


if __name__ == "__main__":
    main()
