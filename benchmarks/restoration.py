"""Restored digits against the truth: uv run benchmarks/restoration.py RUN [--n 120] [--out FILE] [--json].

RUN is a run of pixels on the data set digits, such as runs/digits_edm, which never saw damage. Test digits are damaged
in seven ways, most with noise of 0.05 for pixels from 0 to 1, and restored. The table has PSNR (of the squared error
over all digits) and the share of digits that `digits_cnn` reads right: of the damaged picture itself, of the Gaussian
Wiener filter with the train split's mean and covariance, of a regression (a small net trained here, on pairs of that
damage), of one sample and of the mean of several; and how well a sample fits what was measured, in units of the noise.
The picture has a row for each kind of damage. Beneath: evaluations of the net a second, in restoring and in plain
sampling, in turn, the median of five.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.config.expression import parse_options, value
from jaxgen.data.batches import Pipeline
from jaxgen.data.damage import levels
from jaxgen.data.jpeg import through_jpeg
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.features.digits_cnn import SHAPE, DigitsCnn
from jaxgen.learner import Learner
from jaxgen.models.super_resolution import Compact
from jaxgen.objectives.restoration import Restoration
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Cosine
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.program import Program
from jaxgen.restoration.damage import Damage, old_photograph, quantised
from jaxgen.restoration.gaussian import Gaussian
from jaxgen.restoration.guidance import Restoring
from jaxgen.restoration.jpeg import Jpeg
from jaxgen.restoration.methods import METHODS, TRAINED
from jaxgen.restoration.operators import Mask, matrix_of
from jaxgen.restoration.separable import AverageDown, Blur
from jaxgen.restoring import denoiser, restorer
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore

NOISE = 0.05  # for pixels from 0 to 1
MUCH = 0.3  # where noise is the only damage
QUALITY = 20
LEVELS = 3
PAIRS = 128  # of a batch that the regression sees
TIMED = 64  # samples of a batch whose time is taken
EXAMPLES = (3, 8)  # test digits in the picture
WAYS = ("damaged", "Wiener", "regression", "sample", "mean")
Row = dict[str, Any]


def holes(*places: tuple[slice, slice]) -> np.ndarray:
    """Return a mask f32[1 8 8 1] that is 0 at these places."""
    keep = np.ones((1, *SHAPE), np.float32)
    for rows, columns in places:
        keep[:, rows, columns] = 0
    return keep


@dataclasses.dataclass(frozen=True, eq=False)
class Kind:
    """A kind of damage: what restoring knows of it, and how pictures really came by it, where that is not the same."""

    damage: Damage
    really: Callable[[np.ndarray], np.ndarray] | None = None
    """Pictures f32[n 8 8 1] to damaged ones."""

    @functools.cached_property
    def _matrix(self) -> np.ndarray:
        return matrix_of(self.damage.operator, SHAPE)

    def of(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Damage pictures f32[n 8 8 1]."""
        if self.really is not None:
            return self.really(image)
        flat = image.reshape(len(image), -1) @ self._matrix.T + self.damage.offset
        flat += self.damage.noise * rng.standard_normal(flat.shape)
        shape = self.damage.operator.measures(SHAPE)
        return np.asarray(self.damage.operator.seen(jnp.asarray(flat.reshape(-1, *shape), jnp.float32)))

    def measured(self, pictures: np.ndarray) -> np.ndarray:
        """Return what damaged pictures say, as the operator says it."""
        operator = self.damage.operator
        return np.asarray(operator.measured(jnp.asarray(pictures))) if isinstance(operator, Jpeg) else pictures


def files(image: np.ndarray) -> np.ndarray:
    """Return grey pictures f32[n h w 1] as they are after JPEG, by Pillow."""
    made = [through_jpeg(pixels, QUALITY) for pixels in levels((image + 1) * 127.5)]
    return np.stack(made).astype(np.float32) / 127.5 - 1


def rounded(image: np.ndarray) -> np.ndarray:
    """Return pictures of few levels."""
    return np.round((image + 1) / 2 * (LEVELS - 1)) * np.float32(2 / (LEVELS - 1)) - 1


SCRATCHES = holes((slice(None), slice(2, 3)), (slice(5, 6), slice(None)), (slice(0, 2), slice(5, 7)))
KINDS = {
    "a hole of 4×4": Kind(Damage(operator=Mask(keep=holes((slice(2, 6), slice(2, 6)))), noise=2 * NOISE)),
    "half the side": Kind(Damage(operator=AverageDown(factor=2), noise=2 * NOISE)),
    "blur of 1 pixel": Kind(Damage(operator=Blur(sigma=1.0), noise=2 * NOISE)),
    f"noise of {MUCH}": Kind(Damage(operator=Mask(keep=holes()), noise=2 * MUCH)),
    "old photograph": Kind(old_photograph(SCRATCHES, gain=0.5, lift=0.3, blur=0.5, noise=NOISE)),
    f"JPEG of quality {QUALITY}": Kind(Damage(operator=Jpeg.of_quality(QUALITY, 1, SHAPE[:2]), noise=1.0), files),
    f"{LEVELS} levels of grey": Kind(quantised(LEVELS), rounded),
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

    def read(self, made: np.ndarray) -> float:
        """Return the share that is read right."""
        return float((np.asarray(READ(jnp.asarray(made, jnp.float32))).argmax(-1) == self.label).mean())

    def scores(self, made: np.ndarray) -> Row:
        """Return PSNR in dB, and the share that is read right."""
        error = np.square((np.clip(made, -1, 1) - self.image) / 2).mean()
        return {"psnr": float(-10 * np.log10(error)), "read": self.read(made)}


READ = jax.jit(DigitsCnn().classifier())


def as_seen(pictures: np.ndarray) -> np.ndarray:
    """Return damaged pictures at the digits' size."""
    zoom = SHAPE[0] // pictures.shape[1]
    return pictures.repeat(zoom, 1).repeat(zoom, 2)


@dataclasses.dataclass(frozen=True)
class Pairs:
    """A transform: a digit, damaged anew each time, and as it was."""

    name: str

    def __call__(self, rng: np.random.Generator, example: Any) -> Any:
        image = example["image"][None].astype(np.float32) / 127.5 - 1
        return {"image": as_seen(KINDS[self.name].of(image, rng))[0].astype(np.float32), "target": example["image"]}


def regression(name: str, train: Any, steps: int) -> Callable[[np.ndarray], np.ndarray]:
    """Train a net on pairs of one damage by squared error; return what maps damaged pictures at the digits' size."""
    net = Learner(
        module=Compact(channels=1, scale=1, features=32, convolutions=6),
        optimizer=Optimizer(learning_rate=Cosine(peak=3e-3), clip=1.0),
        ema=(HalfLifeEma(steps=steps / 20),),
    )
    data = Pipeline(source=train, transforms=(Pairs(name),))
    objective = Restoration(net=net, l1=0.0, l2=1.0, total_steps=steps)
    program = Program.of(Experiment(objective=objective, train=data, test=data, steps=steps, batch_size=PAIRS))
    state = program.init()
    for batch in program.batches():
        state, _ = program.step(state, batch)
    return lambda pictures: np.asarray(program.forward(state, jnp.asarray(pictures, jnp.float32)))


def measured(run: Restored, name: str, test: Digits, prior: Gaussian, args: argparse.Namespace) -> tuple[Row, Any]:
    """Return the numbers of one kind of damage, and pictures of the examples."""
    kind, n, k = KINDS[name], len(test.image), args.samples
    damage, pictures = kind.damage, kind.of(test.image, np.random.default_rng(1)).astype(np.float32)
    y = kind.measured(pictures)
    flat = np.asarray(damage.linear(jnp.asarray(y))).reshape(n, -1)
    wiener = prior.posterior(matrix_of(damage.operator, SHAPE), flat, damage.noise)[0].reshape(test.image.shape)
    if name.startswith("noise"):
        draw = denoiser(run.program, noise=damage.noise)
    else:
        draw = restorer(run.program, method=value(args.method, METHODS))
    rows = draw(run.state, None, damage, np.repeat(y, k, 0), np.arange(n * k), 0, {})
    samples = np.concatenate([*rows]).reshape(n, k, *SHAPE)
    ways = {"damaged": as_seen(pictures), "Wiener": wiener}
    if args.pairs:
        ways["regression"] = regression(name, run.experiment.train.source, args.pairs)(ways["damaged"])
    ways |= {"sample": samples[:, 0], "mean": samples.mean(1)}
    row: Row = {"damage": name} | {way: test.scores(made) for way, made in ways.items()}
    off = np.asarray(damage.mismatch(jnp.asarray(samples[:, 0]), jnp.asarray(y))) / damage.noise
    row["fit"] = float(np.sqrt(np.square(off).mean()))
    seen = [test.image, *(ways[way] for way in WAYS[:3] if way in ways)]
    seen += [*(samples[:, j % k] for j in range(3)), ways["mean"]]
    return row, np.concatenate([np.stack([each[i % n] for each in seen]) for i in EXAMPLES])


def speeds(run: Restored, args: argparse.Namespace) -> Row:
    """Return evaluations of the net a second, or products with its derivative, in restoring and in plain sampling."""
    kind, method = next(iter(KINDS.values())), value(args.method, METHODS)
    n, objective = TIMED, run.program.generative
    y = np.zeros((1, *kind.damage.operator.measures(SHAPE)), np.float32)
    held = Restoring(damage=kind.damage, measured=jnp.asarray(y), method=method)
    draw, numbers = restorer(run.program, method=method), np.arange(n, dtype=np.int32)
    ways: dict[str, Callable[[], Any]] = {
        "restoring": lambda: [*draw(run.state, None, kind.damage, y, numbers, 0, {})],
        "sampling": lambda: np.asarray(run.program.sample(run.state, None, np.uint32(0), numbers, {}, None)),
    }
    nfe = {
        "restoring": objective.with_options({"guidance": held}).protocol()["nfe"],
        "sampling": objective.protocol()["nfe"],
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for again in range(6):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if again:  # the first call compiles
                taken[name].append(time.perf_counter() - start)
    return {name: n * nfe[name] / statistics.median(seconds) for name, seconds in taken.items()}


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
    parser.add_argument("--n", type=int, default=120, help="digits")
    parser.add_argument("--split", choices=["test", "train"], default="test", help="which digits are restored")
    parser.add_argument("--samples", type=int, default=8, help="of each, for the mean")
    parser.add_argument("--method", default=repr(TRAINED), metavar="VALUE")
    parser.add_argument("--solver", default="Ddim(eta=1.0)", metavar="VALUE")
    parser.add_argument("--schedule", default="Rho(steps=35)", metavar="VALUE")
    parser.add_argument("--only", nargs="+", choices=[*KINDS], default=[*KINDS], help="kinds of damage")
    parser.add_argument("--pairs", type=int, default=300, help="steps of the regressions; 0 for none")
    parser.add_argument("--no-speed", action="store_true", help="measure no evaluations a second")
    parser.add_argument("--out", type=pathlib.Path, help="a picture")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    rows, pictures = [], []
    try:
        run = opened(args)
        pipeline = run.experiment.test if args.split == "test" else run.experiment.train
        test = Digits.of(pipeline.source, args.n)
        prior = Gaussian.of(Digits.of(run.experiment.train.source).image.reshape(-1, 64))
        for name in args.only:
            row, seen = measured(run, name, test, prior, args)
            rows.append(row)
            pictures.append(seen)
            print(line(row), file=sys.stderr)
        speed = {} if args.no_speed else speeds(run, args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    truth = test.read(test.image)
    if args.out:
        shown = [way for way in WAYS[:3] if way in rows[0]]
        columns = ("true", *shown, "after, 1", "2", "3", f"mean of {args.samples}") * len(EXAMPLES)
        panels = Panels(images=np.clip(np.stack(pictures), -1, 1), titles=tuple(args.only), columns=columns)
        sheet.save(args.out, sheet.sheet(panels, ()))
    if args.json:
        told = {"n": len(test.image), "split": args.split, "method": args.method, "read_of_the_truth": truth}
        print(json.dumps(told | {"rows": rows, "evaluations_a_second": speed}))
        return 0
    n, of = len(test.image), args.split
    print(f"PSNR in dB, and the share of {n} {of} digits that is read right; of the truth it is {truth:.3f}")
    heads = [f"mean of {args.samples}" if way == "mean" else way for way in WAYS if way in rows[0]]
    print(f"{'':<20}" + "".join(f"{head:>14}" for head in heads) + f"{'fit':>7}")
    for row in rows:
        print(line(row))
    if speed:
        print("evaluations of the net a second: " + ", ".join(f"{name} {rate:,.0f}" for name, rate in speed.items()))
    return 0


def line(row: Row) -> str:
    cells = "".join(f"{row[way]['psnr']:>7.2f} {row[way]['read']:>6.3f}" for way in WAYS if way in row)
    return f"{row['damage']:<20}{cells}{row['fit']:>7.2f}"


if __name__ == "__main__":
    sys.exit(main())
