"""Prediction: pictures in; a class, or a mask of the same size, out."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, UnidentifiedImageError

from jaxgen.data.batches import Pipeline
from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import predicted
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.parallel.activations import constrained
from jaxgen.pictures import sheet
from jaxgen.pictures.colours import palette
from jaxgen.pictures.pixels import to_float
from jaxgen.runs.restore import Restored

Row = dict[str, Any]  # what was found in one picture, JSON-ready


def predict(run: Restored, paths: Sequence[pathlib.Path], out: pathlib.Path) -> list[Row]:
    """Classify or segment image files; masks, overlays and legends are written to `out`.

    Raises UserError if the objective does not predict, or a file is not an image, before anything is computed.
    """
    channels = run.data.element["image"][0][-1]
    images = [read(path, channels) for path in paths]
    objective = run.experiment.objective
    match objective:
        case Classification():
            describe: Callable[[Callable[..., Any], Restored, np.ndarray, str, pathlib.Path], Row] = _classify
        case Segmentation():
            describe = _segment
        case _:
            raise UserError(f"{type(objective).__name__} does not predict from images; `jaxgen sample` draws from it")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    forward = jax.jit(constrained(run.mesh, objective.predict))
    with jax.set_mesh(run.mesh):
        return [
            {"image": str(path)} | describe(forward, run, image, path.stem, out)
            for path, image in zip(paths, images, strict=True)
        ]


def read(path: pathlib.Path, channels: int) -> np.ndarray:
    """Read a picture as u8[h w c] of one or three channels.

    Raises UserError if the file is not there or not a picture.
    """
    try:
        with Image.open(path) as file:
            pixels = np.asarray(file.convert("L" if channels == 1 else "RGB"))
    except FileNotFoundError as error:
        raise UserError(f"there is no image {path}") from error
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
    return pixels[..., None] if channels == 1 else pixels


def _batch(image: np.ndarray) -> jax.Array:
    return to_float(jnp.asarray(image))[None]


def _classify(forward: Callable[..., Any], run: Restored, image: np.ndarray, stem: str, out: pathlib.Path) -> Row:
    """Say the five likeliest classes, of the picture prepared as the test images were."""
    probability = np.asarray(forward(run.state, _batch(prepare(run.experiment.test, run.data.element, image))))[0]
    best = np.argsort(-probability, kind="stable")[:5]
    return {"top5": [{"class": run.data.classes[i], "probability": round(float(probability[i]), 6)} for i in best]}


def prepare(pipeline: Pipeline, element: Any, image: np.ndarray) -> np.ndarray:
    """Apply the test images' transforms; without any, resize to the size that the net was trained at."""
    if not pipeline.transforms:
        height, width, _ = element["image"][0]
        resized = Image.fromarray(image.squeeze()).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(resized).reshape(height, width, -1)
    example = {"image": image}
    for transform in pipeline.transforms:
        example = transform(np.random.default_rng(0), example)
    return example["image"]


def _segment(forward: Callable[..., Any], run: Restored, image: np.ndarray, stem: str, out: pathlib.Path) -> Row:
    """Write mask (palette PNG whose values are class ids), overlay and legend, and say each class's share."""
    objective = run.experiment.objective
    assert isinstance(objective, Segmentation)
    logits = objective.inference.on_host(lambda x: forward(run.state, x), np.asarray(_batch(image)))
    mask = np.asarray(predicted(jnp.asarray(logits)))[0].astype(np.uint8)
    found, pixels = np.unique(mask, return_counts=True)
    files = {name: out / f"{stem}_{name}.png" for name in ("mask", "overlay", "legend")}
    coloured = Image.fromarray(mask, mode="P")
    coloured.putpalette(palette(len(run.data.classes)).tobytes())
    coloured.save(files["mask"])
    sheet.save_png(files["overlay"], sheet.overlay(sheet.to_rgb(image), mask, len(run.data.classes)))
    sheet.save_png(files["legend"], sheet.legend(run.data.classes, found.tolist()))
    shares = {run.data.classes[i]: int(n) / mask.size for i, n in zip(found, pixels, strict=True)}
    return {name: str(file) for name, file in files.items()} | {"classes": shares}
