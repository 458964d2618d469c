"""What zero-shot restoration draws, against posteriors that are known: uv run benchmarks/posteriors.py [--out FILE].

On data whose denoiser is exact: a round Gaussian, one of uneven spread, and a mixture of three, each measured with
noise. For every method and solver, the table has how far the samples' mean is from the posterior's, in its standard
deviations, and the samples' variance over the posterior's; of the mixture, by how much the weights of its three parts
are off, half the sum. `Daps` and `SplitGibbs`, which are solvers of their own, follow. The picture shows samples of the
mixture, and exact ones.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.gaussian import GaussianMixture
from jaxgen.diffusion.guidance import Unguided
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.solvers import Euler, Solver
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import scatter
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.daps import Daps, Rounds, SplitGibbs, options
from jaxgen.restoration.gaussian import Gaussian, mixture_posterior
from jaxgen.restoration.methods import Ddnm, DiffPir, Method, PiGdm, Tweedie
from jaxgen.restoration.operators import Dense


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dps:
    """Only the noise inside the inverse, sigma² Jᵀ outside (DPS, arXiv:2209.14687, with its own step left out)."""

    def check(self, damage: Damage) -> None:
        pass

    def evaluations(self, sigma: float) -> int:
        return 1

    def correction(self, pulled: Any, damage: Damage, residual: Any, sigma: Any) -> Any:
        return (sigma / damage.noise) ** 2 * pulled(damage.operator.adjoint(residual))


TURN = np.linalg.qr(np.random.RandomState(0).standard_normal((4, 4)))[0]
MEAN = np.array([0.3, -0.2, 0.1, 0.0])
DATA = {
    "round": Gaussian(MEAN, np.eye(4)),
    "thin": Gaussian(MEAN, TURN @ np.diag([2.0, 0.7, 0.2, 0.05]) @ TURN.T),
}
A = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]])
Y = A @ np.array([0.8, -0.5, 0.6, 0.2])
MODES = GaussianMixture(means=((-1.0, 0.0), (0.8, 0.9), (0.9, -0.9)), stds=(0.35, 0.3, 0.4), weights=(1.0, 2.0, 1.0))
MODES_A, MODES_Y = np.array([[0.8, 0.6]]), np.array([0.2])
NOISES = (0.05, 0.5)
METHODS: dict[str, Method] = {
    "Tweedie": Tweedie(iterations=2),
    "PiGdm": PiGdm(),
    "DiffPir": DiffPir(),
    "Ddnm": Ddnm(),
    "DPS": Dps(),
}
SOLVERS: dict[str, Solver] = {"SDE": Ddim(eta=1.0), "ODE": Euler()}
ROUNDS: dict[str, Rounds] = {"Daps": Daps(), "SplitGibbs": SplitGibbs(steps=16)}
WAYS = [(name, way, method, solver) for name, method in METHODS.items() for way, solver in SOLVERS.items()]
WAYS += [(name, "", method, Euler()) for name, method in ROUNDS.items()]
REACH = 2.0  # of the picture


def drawn(
    data: Any,
    method: Method | Rounds,
    solver: Solver,
    matrix: np.ndarray,
    y: np.ndarray,
    noise: float,
    n: int,
    steps: int,
) -> np.ndarray:
    """Return n samples given y, by the method and by the solver on so many EDM levels."""
    damage = Damage(operator=Dense(matrix=jnp.asarray(matrix, jnp.float32)), noise=noise)
    # As the rounds of `SplitGibbs` have it: what lies below says little, and what lies above is forgotten.
    schedule = Rho(steps=steps)
    if isinstance(method, SplitGibbs):
        schedule = dataclasses.replace(schedule, sigma_max=10.0, sigma_min=0.03)
    how = Sampling(solver=solver, schedule=schedule)
    how = dataclasses.replace(how, **options(method, damage, jnp.asarray(y[None], jnp.float32), Unguided()))
    eps = jax.random.normal(jax.random.key(0), (n, matrix.shape[1]))
    keys = jax.random.split(jax.random.key(1), n)
    net = lambda x, sigma, condition: data.denoise(x, sigma)  # noqa: E731
    return np.asarray(jax.jit(lambda z: how.run(net, Edm(), z, keys, condition={})[0])(eps), np.float64)


def of_gaussian(samples: np.ndarray, data: Gaussian, noise: float) -> tuple[float, float]:
    """Return the distance of the means, and the ratio of the variances."""
    means, covariance = data.posterior(A, Y[None], noise)
    total = float(np.trace(covariance))
    away = np.linalg.norm(samples.mean(0) - means[0]) / math.sqrt(total)
    return float(away), float(np.trace(np.cov(samples.T)) / total)


def of_mixture(samples: np.ndarray, noise: float) -> float:
    """Return how far the weights of the parts are from the posterior's: half the sum of the differences."""
    weights, parts = mixture_posterior(MODES, MODES_A, MODES_Y, noise)
    logs = []
    for weight, (mean, covariance) in zip(weights, parts, strict=True):
        off = samples - mean
        squares = (off * np.linalg.solve(covariance, off.T).T).sum(1)
        logs.append(math.log(max(weight, 1e-300)) - 0.5 * (squares + np.linalg.slogdet(covariance)[1]))
    shares = np.exp(np.asarray(logs) - np.max(logs, axis=0))
    return float(np.abs((shares / shares.sum(0)).mean(1) - weights).sum() / 2)


def exact(noise: float, n: int) -> np.ndarray:
    """Return samples of the mixture's posterior itself."""
    weights, parts = mixture_posterior(MODES, MODES_A, MODES_Y, noise)
    draw = np.random.RandomState(0)
    which = draw.choice(len(weights), n, p=weights)
    return np.stack([draw.multivariate_normal(*parts[k]) for k in which])


def measure(n: int, steps: int) -> tuple[list[dict[str, Any]], list[list[np.ndarray]]]:
    """Return a row for each method and solver, and samples of the mixture for each noise: exact ones, and the ODE's."""
    rows: list[dict[str, Any]] = []
    clouds = [[exact(noise, n)] for noise in NOISES]
    for name, way, method, solver in WAYS:
        row: dict[str, Any] = {"method": name, "solver": way}
        for label, data in DATA.items():
            for noise in NOISES:
                samples = drawn(data, method, solver, A, Y, noise, n, steps)
                row[f"{label} {noise}"] = of_gaussian(samples, data, noise)
        for noise, cloud in zip(NOISES, clouds, strict=True):
            samples = drawn(MODES, method, solver, MODES_A, MODES_Y, noise, n, steps)
            row[f"weights {noise}"] = of_mixture(samples, noise)
            if way != "SDE":
                cloud.append(samples)
        rows.append(row)
        print(f"{name} {way}", file=sys.stderr)
    return rows, clouds


def draw(clouds: Sequence[Sequence[np.ndarray]], out: pathlib.Path) -> None:
    """Show where samples of the mixture lie, a row for each noise."""
    images = [[scatter(jnp.asarray(points, jnp.float32), reach=REACH) for points in cloud] for cloud in clouds]
    titles = tuple(f"noise {noise}" for noise in NOISES)
    names = ("exact", *METHODS, *ROUNDS)
    columns = tuple(
        f"{name} (empty: diverged)" if any(_diverged(cloud[i]) for cloud in clouds) else name
        for i, name in enumerate(names)
    )
    sheet.save(out, sheet.sheet(Panels(images=np.asarray(images), titles=titles, columns=columns), ()))


def _short(x: float) -> str:
    return f"{x:.2f}" if x < 1000 else f"{x:.0e}"


def _diverged(points: np.ndarray) -> bool:
    """Whether the picture has none of the points."""
    return not (np.abs(points) < REACH).all(1).any()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000, help="samples for each number")
    parser.add_argument("--steps", type=int, default=400, help="noise levels")
    parser.add_argument("--out", type=pathlib.Path, help="a picture of samples of the mixture")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows, clouds = measure(args.n, args.steps)
    if args.out:
        draw(clouds, args.out)
    if args.json:
        print(json.dumps(rows))
        return 0
    columns = [name for name in rows[0] if name not in ("method", "solver")]
    print(f"{'':<14}" + "".join(f"{name:>15}" for name in columns))
    for row in rows:
        cells = [row[name] for name in columns]
        told = [", ".join(_short(x) for x in ([cell] if isinstance(cell, float) else cell)) for cell in cells]
        print(f"{row['method'] + ' ' + row['solver']:<14}" + "".join(f"{cell:>15}" for cell in told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
