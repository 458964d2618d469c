"""`jaxgen predict`: pictures in; classes, masks of the pictures' size, or pictures out."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import flax.errors
import numpy as np
from jaxtyping import UInt8
from PIL import Image as Pillow

from jaxgen.commands.output import Parser, check_folder_for, note, print_json, shown, writing
from jaxgen.commands.pictures import Picture, pictures
from jaxgen.data.augment import Resize, Transform
from jaxgen.data.damage import Damage
from jaxgen.data.decode import read_image
from jaxgen.data.frame import Prepared, prepared, returned, returned_classes
from jaxgen.errors import UserError
from jaxgen.metrics.accumulators import predicted
from jaxgen.objective import Classes, Generative, Image, Mask, Prediction
from jaxgen.parallel.memory import free_on_host
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.colours import palette
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore
from jaxgen.typing import IGNORE

Row = dict[str, Any]  # what was found in one picture, JSON-ready

LARGE = 1 << 24  # numbers in an image from which on it is asked whether they fit into memory
TOO_LARGE = "a picture of {}x{} is too large to be predicted at once: it takes"
FAILED = 10  # pictures that could not be predicted are listed up to this number
QUIET = 10.0  # seconds between two lines of progress


def run(prog: str, arguments: list[str]) -> None:
    """Predict pictures and print a line for each."""
    parser = Parser(prog, "Classify, segment or map pictures, prepared as the run's test examples are.").of_run()
    parser.add_argument(
        "images", type=pathlib.Path, nargs="+", metavar="IMAGE", help="image files, and folders of them at any depth"
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for masks, overlays, legends, images")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="likeliest classes to name (default: 5)")
    parser.add_argument(
        "--own-size", action="store_true", help="leave the test transforms out: a segmenter sees each picture as it is"
    )
    parser.add_argument("--to", metavar="DOMAIN", help="of a translation: a or b, what pictures become (default: b)")
    args = parser.parse_args(_as_paths(arguments))
    use_compilation_cache()
    asked = pictures(args.images, args.out, note)
    check_folder_for(args.out)
    opened = towards(restore(RunFolder(args.folder, tuple(args.allow)), args.step, note), args.to)
    transforms = preparation(opened, own_size=args.own_size)
    rows, failed = [], []
    for row in predict(opened, asked, args.out, transforms, args.top):
        (failed if "error" in row else rows).append(row)
        if not args.json and "error" not in row:
            print(_line(row))
    if not rows:
        more = f"; and {len(failed) - 1} more like it" if len(failed) > 1 else ""
        raise UserError(f"no picture could be predicted: {failed[0]['error']}{more}")
    if failed:
        note(f"warning: {len(failed)} of {len(asked)} pictures could not be predicted:")
        listed = [f"  {row['error']}" for row in failed[:FAILED]]
        note("\n".join(listed + ([f"  and {len(failed) - FAILED} more"] if len(failed) > FAILED else [])))
    if cut := [row for row in rows if row.get("cut_away")]:
        note(
            f"note: the test transforms cut parts of {len(cut)} picture(s) away, up to "
            f"{max(row['cut_away'] for row in cut):.0%}; masks are 255 = ignore there; --own-size leaves transforms out"
        )
    if args.json:
        print_json({"step": opened.step, "images": rows, "failed": failed})


def towards(run: Restored, domain: str | None) -> Restored:
    """Return the run with its translation going to this domain, or as it is for None.

    Raises UserError where the run translates nothing, or not there.
    """
    if domain is None:
        return run
    objective = run.program.objective
    if not isinstance(objective, Generative):
        raise UserError(f"{type(objective).__name__} translates nothing; drop --to")
    changed = objective.with_options({"to": domain})
    return run.with_experiment(dataclasses.replace(run.experiment, objective=changed))


def preparation(run: Restored, *, own_size: bool) -> tuple[Transform, ...]:
    """Return what prepares a picture: the test examples' transforms, or, where there are none, what the net needs.

    Raises UserError if the run maps no images, or has a net that cannot take any size and `own_size` asks for it.
    """
    shape, dtype = run.program.data.element["image"]
    predictive = run.program.predictive
    if len(shape) != 3 or dtype != np.uint8:
        raise UserError(f"the run was trained on {dtype} arrays of shape {shape}, not on pictures")
    if own_size and not predictive.any_size():
        raise UserError(f"{type(predictive).__name__} needs pictures of one size; drop --own-size")
    # Test examples are damaged; a picture that is to be restored is already.
    transforms = tuple(each for each in run.experiment.test.transforms if not isinstance(each, Damage))
    if transforms and not own_size:
        return transforms
    return () if predictive.any_size() else (Resize(*shape[:2]),)


def predict(
    run: Restored, asked: Sequence[Picture], out: pathlib.Path, transforms: Sequence[Transform], top: int = 5
) -> Iterator[Row]:
    """Predict pictures one at a time and write what is found to `out`; a row with an "error" is one that failed.

    Raises UserError where a file would be written over a picture that is read, or cannot be written.
    """
    if top < 1:
        raise UserError(f"--top is {top}; it must be at least 1")
    channels = run.program.data.element["image"][0][-1]
    unsaid = any(each not in run.experiment.test.transforms for each in transforms)
    unchecked, spoken = True, time.monotonic()
    for number, picture in enumerate(asked):
        if time.monotonic() - spoken > QUIET:
            spoken = time.monotonic()
            note(f"{number} of {len(asked)} pictures")
        try:
            pixels = read_image(picture.path, channels, shown(picture.path))
            at = _prepared(run, pixels, transforms)
            prediction = _found(run, at.image)
        except UserError as error:
            name = shown(picture.path)
            yield {"image": name, "error": str(error) if name in str(error) else f"{name}: {error}"}
            continue
        if unsaid and at.image.shape != pixels.shape:
            unsaid = False
            size = "x".join(map(str, at.image.shape[:2]))
            note(f"note: the experiment has no test transforms; pictures are brought to {size}, as the net was trained")
        files = _files(prediction, out, picture)
        if unchecked:
            unchecked = False
            _check_inputs(asked, {file for each in asked for file in _files(prediction, out, each).values()})
        with writing():
            for file in files.values():
                file.parent.mkdir(parents=True, exist_ok=True)
            row = _written(prediction, run.classes, pixels, at, files, top)
        yield {"image": shown(picture.path)} | row


def _prepared(run: Restored, pixels: UInt8[np.ndarray, "h w c"], transforms: Sequence[Transform]) -> Prepared:
    """Prepare a picture; where that fails and the net could do without, say so."""
    try:
        return prepared(pixels, transforms)
    except UserError as error:
        if not run.program.predictive.any_size():
            raise
        raise UserError(f"{error}; --own-size leaves the test transforms out") from error


def _found(run: Restored, image: np.ndarray) -> Prediction:
    """Predict one prepared image. Raises UserError where it does not fit the net or the memory."""
    h, w, c = image.shape
    if image.size > LARGE and (free := free_on_host()) is not None:
        needed = h * w * 8 * (c + (len(run.classes) if run.program.predictive.any_size() else 0))
        if needed > free:
            raise UserError(f"{TOO_LARGE.format(h, w)} about {needed / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free")
    try:
        return run.program.predict(run.state, image[None])
    except flax.errors.ScopeParamShapeError as error:
        raise UserError(f"the net does not take a picture of {h}x{w}: it needs the size it was trained at") from error


def _files(prediction: Prediction, out: pathlib.Path, picture: Picture) -> dict[str, pathlib.Path]:
    """Return what is written for a picture: by name, the file."""
    match prediction:
        case Classes():
            return {}
        case Mask():
            return {name: out / f"{picture.name}_{name}.png" for name in ("mask", "overlay", "legend")}
        case Image():
            return {"out": out / f"{picture.name}.png"}


def _check_inputs(asked: Sequence[Picture], files: set[pathlib.Path]) -> None:
    """Raise UserError if a file that is written is a picture that is read."""
    written = {file.resolve() for file in files}
    for picture in asked:
        if picture.path.resolve() in written:
            raise UserError(
                f"the results would be written over the picture {shown(picture.path)}; choose another folder with --out"
            )


def _written(
    prediction: Prediction,
    classes: tuple[str, ...],
    picture: UInt8[np.ndarray, "h w c"],
    at: Prepared,
    files: dict[str, pathlib.Path],
    top: int,
) -> Row:
    match prediction:
        case Classes(probability):
            return _likeliest(np.asarray(probability)[0], classes, top)
        case Mask(logits):
            return _masked(np.asarray(logits)[0], classes, picture, at, files)
        case Image(pixels):
            return _mapped(np.asarray(pixels, np.float32)[0], picture.shape[:2], at, files["out"])


def _likeliest(probability: np.ndarray, classes: tuple[str, ...], top: int) -> Row:
    """Name the likeliest classes."""
    best = np.argsort(-probability, kind="stable")[:top]
    return {f"top{top}": [{"class": classes[i], "probability": round(float(probability[i]), 6)} for i in best]}


def _masked(
    logits: np.ndarray,
    classes: tuple[str, ...],
    picture: UInt8[np.ndarray, "h w c"],
    at: Prepared,
    files: dict[str, pathlib.Path],
) -> Row:
    """Write mask (palette PNG whose values are class ids, 255 where nothing was seen), overlay and legend.

    Returns the files, each class's share of what was seen and, where it is not all, the share that was cut away.
    """
    mask = np.empty(picture.shape[:2], np.uint8)
    overlay = np.empty((*mask.shape, 3), np.uint8)
    for part in returned_classes(logits, predicted, at, *mask.shape):
        mask[part.rows] = np.where(part.shown, part.values, IGNORE)
        overlay[part.rows] = sheet.overlay(sheet.to_rgb(picture[part.rows]), mask[part.rows], len(classes))
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(classes)], colours[IGNORE] = palette(len(classes)), 255
    image = Pillow.fromarray(mask, mode="P")
    image.putpalette(colours.tobytes())
    image.save(files["mask"])
    counts = np.bincount(mask.ravel(), minlength=256)
    seen = mask.size - int(counts[IGNORE])
    ids = np.flatnonzero(counts[:IGNORE]).tolist()
    sheet.save_png(files["overlay"], overlay)
    sheet.save_png(files["legend"], sheet.legend(classes, ids))
    shares = {classes[i]: int(counts[i]) / seen for i in ids}
    return {name: shown(file) for name, file in files.items()} | {"classes": shares} | _cut_away(1 - seen / mask.size)


def _mapped(pixels: np.ndarray, size: tuple[int, int], at: Prepared, file: pathlib.Path) -> Row:
    """Write a picture as PNG, white where nothing was seen; one larger than the net's input stays larger by as much."""
    height, width = (side * p // s for side, p, s in zip(size, pixels.shape, at.shown.shape, strict=False))
    at = dataclasses.replace(at, frame=at.frame * (size[1] / width, size[0] / height, 1))
    image = np.empty((height, width, 3), np.uint8)
    seen = 0
    for part in returned(pixels, at, height, width):
        image[part.rows] = np.where(part.shown[..., None], sheet.to_rgb(part.values), 255)
        seen += int(part.shown.sum())
    sheet.save_png(file, image)
    return {"out": shown(file)} | _cut_away(1 - seen / (height * width))


def _cut_away(share: float) -> Row:
    return {"cut_away": share} if share > 0 else {}


def _line(row: Row) -> str:
    """Say for a person what was found in a picture."""
    for name, guesses in row.items():
        if name.startswith("top"):
            return "  ".join([row["image"], *(f"{guess['class']} {guess['probability']:.3f}" for guess in guesses)])
    if "classes" in row:
        shares = "  ".join(f"{name} {share:.1%}" for name, share in row["classes"].items())
        return f"{row['image']}  {shares}  ->  {row['overlay']}"
    return f"{row['image']}  ->  {row['out']}"


def _as_paths(arguments: list[str]) -> list[str]:
    """Return the arguments with a file whose name begins with a dash told from an option."""
    dashed = lambda word: word.startswith("-") and not word.startswith("--") and os.path.exists(word)  # noqa: E731
    return [f"./{word}" if dashed(word) else word for word in arguments]
