"""Draw the four tasks on one page, each from a trained run: docs/tour.png.

uv run train.py configs/classification/digits_cnn.py
(the same for segmentation/scenes_fcn8s, gan/grid25 and diffusion/digits_edm)
uv run examples/tour.py runs/digits_cnn runs/scenes_fcn8s runs/grid25 runs/digits_edm --out docs/tour.png
"""

import argparse
import pathlib
import sys
from typing import Any

import jax
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from jaxgen.errors import UserError
from jaxgen.evaluation import evaluation_batches
from jaxgen.parallel.mesh import put_batch
from jaxgen.pictures.pixels import to_float
from jaxgen.pictures.sheet import to_rgb
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore

PAPER, INK, BLUE = "#ffffff", "#222222", "#3b6ea8"
TITLES = (
    "Classification: an image gives one vector, 1×N",
    "Segmentation: an image gives a class for every pixel, H×W×N",
    "GAN: a generator turns noise into samples,\na discriminator says how real each place is",
    "Diffusion: a net learns to denoise,\nand noise becomes images",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the four tasks on one page.")
    for name in ("classifier", "segmenter", "gan", "diffusion"):
        parser.add_argument(name, type=pathlib.Path, help="a run folder")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tour.png"))
    args = parser.parse_args()
    matplotlib.rcParams.update({"font.size": 9, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": "#888888"})
    figure = Figure(figsize=(12.4, 7.2), dpi=100, facecolor=PAPER)
    parts = figure.subfigures(2, 2, wspace=0.03, hspace=0.05)
    runs = (args.classifier, args.segmenter, args.gan, args.diffusion)
    for part, title, folder, draw in zip(parts.flat, TITLES, runs, (classes, masks, game, strip), strict=True):
        part.suptitle(title, x=0.02, ha="left", va="top", y=0.99, fontsize=11, fontweight="bold")
        draw(part, restore(RunFolder(folder), None, print))
    figure.savefig(args.out, facecolor=PAPER)
    print(args.out)


def classes(part: SubFigure, run: Restored) -> None:
    """Draw three test images and the probabilities of their classes."""
    batch = _batch(run, 3)
    images = np.asarray(to_float(batch["image"]))[:3]
    probability = run.program.predict(run.state, images).probability
    axes = part.subplots(3, 2, width_ratios=(1, 3.4), gridspec_kw=dict(top=0.86, bottom=0.13, left=0.02, right=0.96))
    for (left, right), image, row in zip(axes, images, probability, strict=True):
        _show(left, image)
        right.bar(run.classes, row, color=[BLUE if p == row.max() else "#b8c7da" for p in row])
        right.set(ylim=(0, 1), yticks=(0, 1))
        right.tick_params(labelbottom=right is axes[-1, 1])
    axes[-1, 1].set_xlabel("class")
    axes[1, 1].set_ylabel("probability")


def masks(part: SubFigure, run: Restored) -> None:
    """Draw test images, the truth and the prediction."""
    panels = _preview(run, "masks")
    rows, titles = panels.images[:, :5], panels.titles
    axes = part.subplots(
        len(rows), 5, gridspec_kw=dict(top=0.88, bottom=0.03, left=0.11, right=0.98, wspace=0.04, hspace=0.06)
    )
    for line, title, images in zip(axes, titles, rows, strict=True):
        for ax, image in zip(line, images, strict=True):
            _show(ax, image)
        line[0].text(-0.08, 0.5, title, transform=line[0].transAxes, ha="right", va="center")


def game(part: SubFigure, run: Restored) -> None:
    """Draw data, samples and the discriminator's opinion of the plane."""
    panels = _preview(run, "samples")
    images = panels.images[0][:3]
    axes = part.subplots(1, 3, gridspec_kw=dict(top=0.82, bottom=0.12, left=0.02, right=0.98, wspace=0.06))
    names = ("data", "noise, through the generator", "probability that it is real")
    for ax, image, name in zip(axes, images, names, strict=True):
        _show(ax, image, frame=True)
        ax.set_xlabel(name)


def strip(part: SubFigure, run: Restored) -> None:
    """Draw samples at falling noise levels, noise at the left."""
    images = _preview(run, "reverse").images[:4]
    rows, columns = images.shape[:2]
    axes = part.subplots(
        rows, columns, gridspec_kw=dict(top=0.82, bottom=0.1, left=0.02, right=0.98, wspace=0.05, hspace=0.05)
    )
    for line, row in zip(axes, images, strict=True):
        for ax, image in zip(line, row, strict=True):
            _show(ax, image)
    for ax, name in ((axes[-1, 0], "noise"), (axes[-1, -1], "sample")):
        ax.set_xlabel(name)


def _batch(run: Restored, n: int) -> Any:
    return next(evaluation_batches(run.program, run.experiment.test.source.open(), n))


def _preview(run: Restored, name: str) -> Any:
    count = 8 if len(run.program.data.element["image"][0]) == 3 else 1024
    return jax.device_get(run.program.preview(run.state, put_batch(run.program.mesh, _batch(run, count))))[name]


def _show(ax: Axes, image: np.ndarray, frame: bool = False) -> None:
    ax.imshow(to_rgb(np.asarray(image)), interpolation="nearest")
    ax.set(xticks=(), yticks=())
    for side in ax.spines.values():
        side.set_visible(frame)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
