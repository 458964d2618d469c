"""What runs make of the test photographs: uv run benchmarks/photographs.py RUN [RUN …] [--out FILE] [--json].

Each run damages whole photographs as its test data are and restores them. Prints for each photograph PSNR and SSIM of Y
(BT.601, without a border of `scale` pixels) before and after; a small picture is enlarged by a bicubic filter before.
And how much of the truth's detail there is: the power of Y above half the small picture's Nyquist frequency, as a share
of the truth's. The picture has a square of each photograph: before, after by each run, and the truth.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.data.damage import Damage
from jaxgen.data.photographs import Photographs
from jaxgen.errors import UserError
from jaxgen.metrics.reconstruction import luma_levels, psnr_y, ssim_y
from jaxgen.objectives import pairs
from jaxgen.objectives.paired_diffusion import PairedDiffusion
from jaxgen.objectives.restoration import Restoration
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore

MULTIPLE = 16  # of which sides are cut down to one
Row = dict[str, Any]
Pictures = tuple[np.ndarray, np.ndarray, np.ndarray]  # before, after and truth, f32[h w 3] in [-1, 1]


def restored(run: Restored, scale: int, photograph: np.ndarray, number: int) -> Pictures:
    """Return a photograph before, after, and as it is."""
    height, width = (side // MULTIPLE * MULTIPLE for side in photograph.shape[:2])
    (damage,) = (each for each in run.experiment.test.transforms if isinstance(each, Damage))
    example = damage(np.random.default_rng(number), {"image": photograph[:height, :width]})
    image, truth = (example[name].astype(np.float32) / 127.5 - 1 for name in ("image", "target"))
    found: Any = run.program.predict(run.state, image[None])
    before = np.asarray(pairs.enlarged(jnp.asarray(image[None]), scale))
    return before[0], np.asarray(found.pixels)[0], truth


def measured(pictures: Pictures, scale: int) -> Row:
    """Return the numbers of one photograph."""
    before, after, truth = (jnp.asarray(x[None]) for x in pictures)
    row: Row = {}
    for suffix, made in (("_before", before), ("", after)):
        row |= {
            f"psnr_y{suffix}": float(psnr_y(truth, made, scale)[0]),
            f"ssim_y{suffix}": float(ssim_y(truth, made, scale)[0]),
            f"detail{suffix}": detail(made, scale) / detail(truth, scale),
        }
    return row


def detail(image: Any, scale: int) -> float:
    """Return the power of Y above half the Nyquist frequency of a picture `scale` times smaller."""
    luma = np.asarray(luma_levels(image, 0))[0, :, :, 0]
    # A window, so that the jump from one border to the other counts for nothing.
    window = np.hanning(luma.shape[0])[:, None] * np.hanning(luma.shape[1])[None]
    power = np.abs(np.fft.fft2((luma - luma.mean()) * window)) ** 2
    frequency = np.hypot(np.fft.fftfreq(luma.shape[0])[:, None], np.fft.fftfreq(luma.shape[1])[None])
    return float(power[frequency > 0.25 / scale].sum())


def square(image: np.ndarray, side: int) -> np.ndarray:
    """Return the middle of a picture."""
    y, x = ((n - side) // 2 for n in image.shape[:2])
    return image[y : y + side, x : x + side]


def picture(made: Sequence[dict[str, Pictures]], names: Sequence[str], side: int, out: pathlib.Path) -> None:
    """Draw a row for what was before, one for each run, and one for the truth."""
    first = [pictures[0] for pictures in made[0].values()]
    rows = [first, *([pictures[1] for pictures in of_run.values()] for of_run in made)]
    rows.append([pictures[2] for pictures in made[0].values()])
    images = np.stack([[square(image, side) for image in row] for row in rows])
    titles = ("before", *(names if len(names) > 1 else ("after",)), "truth")
    sheet.save(out, sheet.sheet(Panels(images=images, titles=titles), ()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN")
    parser.add_argument("--side", type=int, default=192, help="pixels of the squares in the picture")
    parser.add_argument("--out", type=pathlib.Path, help="a picture of a square of each photograph")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    rows: dict[str, dict[str, Row]] = {}
    made = []
    try:
        for path in args.runs:
            run = restore(RunFolder(path), None, lambda line: print(line, file=sys.stderr))
            objective = run.experiment.objective
            if not isinstance(objective, Restoration | PairedDiffusion):
                raise UserError(f"{path} restores nothing by pairs; give a run such as runs/photos_x2_compact")
            photographs = Photographs(split="test").photographs()
            of_run = {name: restored(run, objective.scale, x, k) for k, (name, x) in enumerate(photographs.items())}
            made.append(of_run)
            rows[path.name] = {name: measured(pictures, objective.scale) for name, pictures in of_run.items()}
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.out:
        picture(made, list(rows), args.side, args.out)
    if args.json:
        print(json.dumps(rows))
        return 0
    for name, of_run in rows.items():
        columns = list(next(iter(of_run.values())))
        print(f"{name:<22}" + "".join(f"{column:>16}" for column in columns))
        mean = {column: float(np.mean([row[column] for row in of_run.values()])) for column in columns}
        for photograph, row in {**of_run, "mean": mean}.items():
            print(f"  {photograph:<20}" + "".join(f"{row[column]:>16.3f}" for column in columns))
    return 0


if __name__ == "__main__":
    sys.exit(main())
