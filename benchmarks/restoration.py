"""Restored digits against the truth: uv run benchmarks/restoration.py RUN [--n 360] [--out FILE] [--json].

RUN is a run of pixels on the data set digits, such as runs/digits_edm, which never saw damage. Test digits are damaged
in five ways, with noise of 0.05 for pixels from 0 to 1, and restored. The table has PSNR (of the squared error over all
digits) and the share of digits that `digits_cnn` reads right: of the damaged picture itself, of the Gaussian Wiener
filter with the train split's mean and covariance, of one sample and of the mean of several; and how well a sample fits
what was measured, in units of the noise. The picture has a row for each kind of damage.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config.expression import parse_options, value
from jaxgen.errors import UserError
from jaxgen.features.digits_cnn import SHAPE, DigitsCnn
from jaxgen.noise import numbered
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.restoration.damage import Damage, old_photograph
from jaxgen.restoration.gaussian import Gaussian
from jaxgen.restoration.methods import METHODS, TRAINED
from jaxgen.restoration.operators import Mask, matrix_of
from jaxgen.restoration.separable import AverageDown, Blur
from jaxgen.restoring import denoiser, restorer
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore

NOISE = 0.05  # for pixels from 0 to 1
MUCH = 0.3  # where noise is the only damage
EXAMPLES = (3, 8)  # test digits in the picture
Row = dict[str, Any]


def holes(*places: tuple[slice, slice]) -> np.ndarray:
    """Return a mask f32[1 8 8 1] that is 0 at these places."""
    keep = np.ones((1, *SHAPE), np.float32)
    for rows, columns in places:
        keep[:, rows, columns] = 0
    return keep


SCRATCHES = holes((slice(None), slice(2, 3)), (slice(5, 6), slice(None)), (slice(0, 2), slice(5, 7)))
DAMAGES = {
    "a hole of 4×4": Damage(operator=Mask(keep=holes((slice(2, 6), slice(2, 6)))), noise=2 * NOISE),
    "half the side": Damage(operator=AverageDown(factor=2), noise=2 * NOISE),
    "blur of 1 pixel": Damage(operator=Blur(sigma=1.0), noise=2 * NOISE),
    f"noise of {MUCH}": Damage(operator=Mask(keep=holes()), noise=2 * MUCH),
    "old photograph": old_photograph(SCRATCHES, gain=0.5, lift=0.3, blur=0.5, noise=NOISE),
}


@dataclasses.dataclass
class Digits:
    """Digits f32[n 8 8 1] in [-1, 1] and what they are."""

    image: np.ndarray
    label: np.ndarray

    @classmethod
    def of(cls, source: Any, n: int | None = None) -> "Digits":
        examples = source.open()
        rows = [examples[i] for i in range(len(examples) if n is None else min(n, len(examples)))]
        image = np.stack([row["image"] for row in rows]).astype(np.float32) / 127.5 - 1
        return cls(image, np.array([int(row["label"]) for row in rows]))

    def scores(self, made: np.ndarray) -> Row:
        """Return PSNR in dB, and the share that is read right."""
        error = np.square((np.clip(made, -1, 1) - self.image) / 2).mean()
        right = np.asarray(READ(jnp.asarray(made, jnp.float32))).argmax(-1) == self.label
        return {"psnr": float(-10 * np.log10(error)), "read": float(right.mean())}


READ = jax.jit(DigitsCnn().classifier())


def as_seen(measured: np.ndarray) -> np.ndarray:
    """Return measurements as pictures of the digits' size."""
    zoom = SHAPE[0] // measured.shape[1]
    return measured.repeat(zoom, 1).repeat(zoom, 2)


def measured(run: Restored, name: str, test: Digits, prior: Gaussian, args: argparse.Namespace) -> tuple[Row, Any]:
    """Return the numbers of one kind of damage, and pictures of the examples."""
    damage, n, k = DAMAGES[name], len(test.image), args.samples
    y = np.asarray(damage.apply(jnp.asarray(test.image), numbered(jax.random.key(1), jnp.arange(n))))
    matrix = matrix_of(damage.operator, SHAPE)
    flat = np.asarray(damage.linear(jnp.asarray(y))).reshape(n, -1)
    wiener = prior.posterior(matrix, flat, damage.noise)[0].reshape(test.image.shape)
    if name.startswith("noise"):
        draw = denoiser(run.program, noise=damage.noise)
    else:
        draw = restorer(run.program, method=value(args.method, METHODS))
    rows = draw(run.state, None, damage, np.repeat(y, k, 0), np.arange(n * k), 0, {})
    samples = np.concatenate([*rows]).reshape(n, k, *SHAPE)
    ways = {"damaged": as_seen(y), "Wiener": wiener, "sample": samples[:, 0], "mean": samples.mean(1)}
    row: Row = {"damage": name} | {way: test.scores(made) for way, made in ways.items()}
    off = np.asarray(damage.mismatch(jnp.asarray(samples[:, 0]), jnp.asarray(y))) / damage.noise
    row["fit"] = float(np.sqrt(np.square(off).mean()))
    seen = [test.image, ways["damaged"], wiener, *(samples[:, j % k] for j in range(3)), ways["mean"]]
    return row, np.concatenate([np.stack([each[i % n] for each in seen]) for i in EXAMPLES])


def with_options(run: Restored, options: dict[str, Any]) -> Restored:
    """Return the run with another way to draw samples."""
    objective: Any = run.experiment.objective
    return run.with_experiment(dataclasses.replace(run.experiment, objective=objective.with_options(options)))


def opened(args: argparse.Namespace) -> Restored:
    """Open the run. Raises UserError for one of other data."""
    run = restore(RunFolder(args.run), None, lambda line: print(line, file=sys.stderr))
    if run.program.data.element["image"][0] != SHAPE or run.program.generative.conditions():
        raise UserError(f"{args.run} makes no digits of 8×8 without a class; give a run such as runs/digits_edm")
    return with_options(run, parse_options({"solver": args.solver, "schedule": args.schedule}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, metavar="RUN")
    parser.add_argument("--n", type=int, default=360, help="test digits")
    parser.add_argument("--samples", type=int, default=8, help="of each, for the mean")
    parser.add_argument("--method", default=repr(TRAINED), metavar="VALUE")
    parser.add_argument("--solver", default="Ddim(eta=1.0)", metavar="VALUE")
    parser.add_argument("--schedule", default="Rho(steps=35)", metavar="VALUE")
    parser.add_argument("--only", nargs="+", choices=[*DAMAGES], default=[*DAMAGES], help="kinds of damage")
    parser.add_argument("--out", type=pathlib.Path, help="a picture")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    rows, pictures = [], []
    try:
        run = opened(args)
        test = Digits.of(run.experiment.test.source, args.n)
        prior = Gaussian.of(Digits.of(run.experiment.train.source).image.reshape(-1, 64))
        for name in args.only:
            row, seen = measured(run, name, test, prior, args)
            rows.append(row)
            pictures.append(seen)
            print(line(row), file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        columns = ("true", "damaged", "Wiener", "after, 1", "2", "3", f"mean of {args.samples}") * len(EXAMPLES)
        panels = Panels(images=np.clip(np.stack(pictures), -1, 1), titles=tuple(args.only), columns=columns)
        sheet.save(args.out, sheet.sheet(panels, ()))
    if args.json:
        print(json.dumps({"n": len(test.image), "method": args.method, "rows": rows}))
        return 0
    print(f"PSNR in dB, and the share of {len(test.image)} test digits that is read right")
    print(f"{'':<18}{'damaged':>14}{'Wiener':>14}{'sample':>14}{f'mean of {args.samples}':>14}{'fit':>7}")
    for row in rows:
        print(line(row))
    return 0


def line(row: Row) -> str:
    ways = ("damaged", "Wiener", "sample", "mean")
    cells = "".join(f"{row[way]['psnr']:>7.2f} {row[way]['read']:>6.3f}" for way in ways)
    return f"{row['damage']:<18}{cells}{row['fit']:>7.2f}"


if __name__ == "__main__":
    sys.exit(main())
