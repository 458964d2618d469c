"""`jaxgen predict`: images in; classes, masks of the same size, or images out."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from jaxgen.commands.output import Parser, note, print_json
from jaxgen.data.batches import Pipeline
from jaxgen.errors import UserError
from jaxgen.objective import Classes, Image, Mask, Prediction
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.colours import palette
from jaxgen.pictures.pixels import to_float
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore

Row = dict[str, Any]  # what was found in one image, JSON-ready


def run(prog: str, arguments: list[str]) -> None:
    """Predict image files and print a line for each."""
    parser = Parser(prog, "Classify, segment or map images of any size.").of_run()
    parser.add_argument("images", type=pathlib.Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for masks, overlays, legends, images")
    args = parser.parse_args(arguments)
    use_compilation_cache()
    opened = restore(RunFolder(args.folder, tuple(args.allow)), args.step, note)
    rows = predict(opened, args.images, args.out)
    if args.json:
        return print_json({"step": opened.step, "images": rows})
    for row in rows:
        if "top5" in row:
            print(row["image"], *(f"{guess['class']} {guess['probability']:.3f}" for guess in row["top5"]), sep="  ")
        elif "classes" in row:
            shares = "  ".join(f"{name} {share:.1%}" for name, share in row["classes"].items())
            print(f"{row['image']}  {shares}  ->  {row['overlay']}")
        else:
            print(f"{row['image']}  ->  {row['out']}")


def predict(run: Restored, paths: Sequence[pathlib.Path], out: pathlib.Path) -> list[Row]:
    """Predict image files; what is found is written to `out`.

    Raises UserError if the objective does not predict, or a file is not an image, before anything is computed.
    """
    element = run.program.data.element["image"][0]
    images = [read(path, element[-1]) for path in paths]
    whole = run.program.predictive.any_size()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another folder with --out") from error
    rows = []
    for path, image in zip(paths, images, strict=True):
        seen = image if whole else prepare(run.experiment.test, element, image)
        prediction = run.program.predict(run.state, np.asarray(to_float(jnp.asarray(seen)))[None])
        rows.append({"image": str(path)} | _written(prediction, run.classes, image, out, path.stem))
    return rows


def read(path: pathlib.Path, channels: int) -> np.ndarray:
    """Read an image as u8[h w c] of one or three channels.

    Raises UserError if the file is not there or not an image.
    """
    try:
        with Pillow.open(path) as file:
            pixels = np.asarray(file.convert("L" if channels == 1 else "RGB"))
    except FileNotFoundError as error:
        raise UserError(f"there is no image {path}") from error
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} cannot be read as an image: {error}") from error
    return pixels[..., None] if channels == 1 else pixels


def prepare(pipeline: Pipeline, shape: tuple[int, ...], image: np.ndarray) -> np.ndarray:
    """Apply the test images' transforms; without any, resize to the size that the net was trained at."""
    if not pipeline.transforms:
        height, width, _ = shape
        resized = Pillow.fromarray(image.squeeze()).resize((width, height), Pillow.Resampling.BILINEAR)
        return np.asarray(resized).reshape(height, width, -1)
    example = {"image": image}
    for transform in pipeline.transforms:
        example = transform(np.random.default_rng(0), example)
    return example["image"]


def _written(prediction: Prediction, classes: tuple[str, ...], image: np.ndarray, out: pathlib.Path, stem: str) -> Row:
    match prediction:
        case Classes(probability):
            return _top5(np.asarray(probability)[0], classes)
        case Mask(ids):
            return _masked(np.asarray(ids)[0].astype(np.uint8), classes, image, out, stem)
        case Image(pixels):
            sheet.save_png(out / f"{stem}.png", sheet.to_rgb(np.asarray(pixels)[0]))
            return {"out": str(out / f"{stem}.png")}


def _top5(probability: np.ndarray, classes: tuple[str, ...]) -> Row:
    """Name the five likeliest classes."""
    best = np.argsort(-probability, kind="stable")[:5]
    return {"top5": [{"class": classes[i], "probability": round(float(probability[i]), 6)} for i in best]}


def _masked(mask: np.ndarray, classes: tuple[str, ...], image: np.ndarray, out: pathlib.Path, stem: str) -> Row:
    """Write mask (palette PNG whose values are class ids), overlay and legend, and say each class's share."""
    ids, pixels = np.unique(mask, return_counts=True)
    files = {name: out / f"{stem}_{name}.png" for name in ("mask", "overlay", "legend")}
    coloured = Pillow.fromarray(mask, mode="P")
    coloured.putpalette(palette(len(classes)).tobytes())
    coloured.save(files["mask"])
    sheet.save_png(files["overlay"], sheet.overlay(sheet.to_rgb(image), mask, len(classes)))
    sheet.save_png(files["legend"], sheet.legend(classes, ids.tolist()))
    shares = {classes[i]: int(n) / mask.size for i, n in zip(ids, pixels, strict=True)}
    return {name: str(file) for name, file in files.items()} | {"classes": shares}
