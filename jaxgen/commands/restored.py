"""What `jaxgen restore` writes of a picture: samples, their mean and spread, and a strip to look at."""

import argparse
import dataclasses
import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxgen.commands import sample_files
from jaxgen.commands.damaged import Damaged, Pixels, as_floats
from jaxgen.commands.output import shown
from jaxgen.commands.pictures import Picture
from jaxgen.metrics.reconstruction import psnr
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels

STRIP = 8  # most samples in a strip
WIDE = 2048  # most pixels of a strip of large pictures, side by side

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Job:
    """A picture to be restored."""

    picture: Picture
    damaged: Damaged
    shape: tuple[int, ...]  # of what is restored
    windows: int  # through which it is seen
    whole: Pixels | None = None  # as it was, where that is known


def written(job: Job, samples: np.ndarray, args: argparse.Namespace) -> Row:
    """Write what was made of a picture, and return where, and how well it fits."""
    name = job.picture.name
    at = lambda what: args.out / f"{name}_{what}.png"  # noqa: E731
    files = {"out": args.out / f"{name}.png", "strip": at("strip")}
    mean, spread = samples.mean(0), samples.std(0)
    most = float(spread.max()) or 1.0
    files["out"].parent.mkdir(parents=True, exist_ok=True)
    own = functools.partial(sample_files.own_channels, alpha=True)
    sheet.save(files["out"], own(samples[:1])[0])
    if job.damaged.holes is not None:
        files["mask"] = at("mask")
        Image.fromarray(np.uint8(255) * job.damaged.holes).save(files["mask"])
    if job.whole is not None:
        files["damaged"] = at("damaged")
        sheet.save(files["damaged"], job.damaged.pixels)
    if len(samples) > 1:
        files |= {what: at(what) for what in ("mean", "spread")}
        sheet.save(files["mean"], own(mean[None])[0])
        sheet.save(files["spread"], own(2 * spread[None] / most - 1)[0])
        for k, sample in enumerate(samples):
            sheet.save(at(f"sample_{k}"), own(sample[None])[0])
    sheet.save(files["strip"], _strip(job, samples, mean, 2 * spread / most - 1))
    row: Row = {"image": shown(job.picture.path), **{what: shown(file) for what, file in files.items()}}
    row["windows"] = job.windows
    if len(samples) > 1:
        row["spread_white"] = most / 2  # in the units of 0..1
    measured = jnp.asarray(job.damaged.measured.repeat(len(samples), 0))
    mismatch = np.asarray(job.damaged.damage.mismatch(jnp.asarray(samples), measured))
    row["mismatch"] = float(np.sqrt(np.square(mismatch).mean())) / job.damaged.damage.noise
    return row | _against_the_truth(job, samples, mean)


def line(row: Row) -> str:
    """Say for a person what was made."""
    said = f"{row['image']}  fits to {row['mismatch']:.2f} of the noise"
    if "psnr" in row:
        others = [f"{word} {row[key]:.1f}" for key, word in (("psnr_damaged", "damaged"), ("psnr_mean", "mean"))
                  if key in row]  # fmt: skip
        said += f"  {row['psnr']:.1f} dB" + (f" ({', '.join(others)})" if others else "")
    return f"{said}  ->  {row['strip']}"


def _against_the_truth(job: Job, samples: np.ndarray, mean: np.ndarray) -> Row:
    """Return PSNR in dB of the first sample, of the mean, and of the damaged picture where it has the same size."""
    if job.whole is None:
        return {}
    truth, pixels = as_floats(job.whole), job.damaged.pixels
    against = {"psnr": samples[:1]}
    if len(samples) > 1:
        against["psnr_mean"] = mean[None]
    if pixels.shape[:2] == job.whole.shape[:2]:
        against["psnr_damaged"] = np.broadcast_to(as_floats(pixels), truth.shape)
    return {name: float(psnr(jnp.asarray(truth), jnp.asarray(made, jnp.float32))[0]) for name, made in against.items()}


def _strip(job: Job, samples: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Lay the picture as it was, and what was made of it, side by side with words.

    Of large pictures fewer samples are shown, and all are made smaller where they would still be too wide together.
    """
    picture = functools.partial(sample_files.picture, alpha=True)
    before = picture(as_floats(job.damaged.pixels))
    zoom = job.shape[0] // before.shape[1]
    columns = {} if job.whole is None else {"truth": picture(as_floats(job.whole))[0]}
    columns["damaged" if columns else "before"] = before.repeat(zoom, 1).repeat(zoom, 2)[0]
    after = "restored" if job.whole is not None else "after"
    others = len(columns) + (2 if len(samples) > 1 else 0)
    for k, sample in enumerate(picture(samples[: max(1, min(STRIP, WIDE // job.shape[1] - others))])):
        columns[after if len(samples) == 1 else f"{after}, {k + 1}"] = sample
    if len(samples) > 1:
        columns |= {f"mean of {len(samples)}": picture(mean[None])[0], "spread": picture(spread[None])[0]}
    smaller = max(1.0, len(columns) * job.shape[1] / WIDE)
    size = math.floor(job.shape[1] / smaller), max(1, math.floor(job.shape[0] / smaller))
    images = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.LANCZOS)) for one in columns.values()]
    return sheet.sheet(Panels(images=np.stack(images)[None], columns=tuple(columns)), ())
