"""`jaxgen data`: what a config reads, before anything is trained."""

import pathlib
from typing import Any

import numpy as np

from jaxgen.commands.output import Parser, check_file, note, print_json, whole, writing
from jaxgen.config import codec, files, overrides
from jaxgen.data import about, batches, layout
from jaxgen.data.source import Examples, name_of, portrayed
from jaxgen.data.survey import Survey, survey, twice
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels

MOST, SHOWN, NAMED, LISTED = 10_000, 8, 3, 40  # examples looked at, examples on a sheet, files named, classes listed


def run(prog: str, arguments: list[str]) -> None:
    """Print how many examples there are, of which sizes and classes, and weights for the classes."""
    parser = Parser(prog, "What a config reads: examples, sizes, classes, class weights, duplicates.").with_json()
    parser.add_argument("config", type=pathlib.Path, metavar="CONFIG", help="any of its fields follow, as for train.py")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.png", help="a sheet of examples after the transforms")
    parser.add_argument("--most", type=whole, default=MOST, help=f"examples to look at, {MOST:,} by default")
    args, fields = parser.parse_known_args(arguments)
    check_file(args.out, sheet.FORMATS)
    if args.most < 1:
        raise UserError(f"--most {args.most}: it must be at least 1")
    experiment = overrides.override(files.load(args.config), fields, prog=f"{prog} {args.config}")
    train_set, test_set = experiment.train.source.open(), experiment.test.source.open()
    # Sizes that differ where they must not are this command's to explain, not to stop at.
    try:
        element = batches.element(train_set, experiment.train.transforms)
        unfit = ""
    except UserError as error:
        first = batches.transformed(train_set[0], experiment.train.transforms, np.random.default_rng(0))
        element, unfit = {key: (value.shape, value.dtype) for key, value in first.items()}, str(error)
    first_line, *notes = about.lines(train_set, test_set, element)
    train, test = survey(train_set, args.most), survey(test_set, args.most)
    notes += [f"warning: {line}" for line in _warnings(train, test, train_set, test_set)]
    notes += [f"warning: {unfit}"] if unfit else []
    if args.json:
        print_json(_report(train, test, train_set, test_set, notes))
    else:
        print(first_line, *_table(train, test, train_set.classes), *_weights(train, experiment), sep="\n")
        for line in notes:
            note(line)
    if args.out:
        picture = _sheet(train_set, experiment)
        with writing():
            sheet.save(args.out, picture)


def _warnings(train: Survey, test: Survey, train_set: Examples, test_set: Examples) -> list[str]:
    found = [fault for survey in (train, test) for fault in survey.faults[:LISTED]]
    both = twice(train, test, train_set, test_set)
    if both:
        named = ", ".join(f"{one} is {other}" for one, other in both[:NAMED])
        found.append(f"{len(both):,} test images are training images too, pixel by pixel: {named}")
    if again := [places for places in train.digests.values() if len(places) > 1]:
        named = " and ".join(name_of(train_set, place) for place in again[0][:2])
        found.append(f"{len(again):,} training images are there more than once, such as {named}")
    for name, side in (("training", train), ("test", test)):
        if side.unit and (missing := np.flatnonzero(side.counts == 0).tolist()):
            names = layout.few([train_set.classes[i] for i in missing], about.NAMED)
            found.append(f"no {name} {side.unit} of {len(missing)} of {len(side.counts)} classes: {names}")
    return found


def _table(train: Survey, test: Survey, classes: tuple[str, ...]) -> list[str]:
    """Sizes, then a line for each class: its share of the training and of the test data."""
    lines = [f"{name} images: {_sizes(s)}" for name, s in (("training", train), ("test", test)) if s.sizes]
    if not train.unit:
        return lines
    if train.unit == "pixels":
        every = train.ignored + int(train.counts.sum())
        lines.append(f"pixels that do not count (255): {train.ignored / max(every, 1):.1%} of the training masks'")
    wide = max(len("class"), *(len(name) for name in classes[:LISTED]))
    lines.append(f"{'class':<{wide}}  {f'training {train.unit}':>17}     share    images  test share")
    for i, name in enumerate(classes[:LISTED]):
        lines.append(
            f"{name:<{wide}}  {train.counts[i]:>17,}  {train.shares[i]:>8.2%}  {train.images[i]:>8,}  "
            f"{test.shares[i]:>10.2%}"
        )
    return lines + ([f"… and {len(classes) - LISTED} more classes"] if len(classes) > LISTED else [])


def _sizes(found: Survey) -> str:
    """How large the images are: all alike, or from the smallest to the largest by area."""
    shapes = sorted(found.sizes, key=lambda shape: (np.prod(shape), shape))
    said = " to ".join(about.size(shape) for shape in dict.fromkeys((shapes[0], shapes[-1])))
    return f"{found.examples:,} looked at, {said}" + (f", {len(shapes)} sizes" if len(shapes) > 2 else "")


def _weights(train: Survey, experiment: Experiment) -> list[str]:
    """Class weights as options, of the field that takes them where the experiment has one."""
    if not train.unit or len(train.counts) > LISTED:
        return []
    rows = codec.flatten(codec.encode(experiment))
    field = next((name for name in rows if name.split(".")[-1] == "class_weights"), "class_weights")
    option = f"--{field.replace('_', '-')}" if field in rows else "class weights:"
    kinds = (("inverse frequency", train.inverse_frequency()), ("median frequency", train.median_frequency()))
    return [f"weights by {name}: {option} {' '.join(f'{w:g}' for w in weights)}" for name, weights in kinds]


def _report(train: Survey, test: Survey, train_set: Examples, test_set: Examples, notes: list[str]) -> dict[str, Any]:
    sides = {}
    for name, found, examples in (("train", train, train_set), ("test", test, test_set)):
        sizes = [{"shape": list(shape), "images": count} for shape, count in sorted(found.sizes.items())]
        sides[name] = {
            "examples": len(examples),
            "looked_at": found.examples,
            "sizes": sizes,
            "unit": found.unit,
            "counts": found.counts.tolist(),
            "images": found.images.tolist(),
            "shares": found.shares.tolist(),
        }
    weights = {"inverse_frequency": train.inverse_frequency(), "median_frequency": train.median_frequency()}
    return {
        "classes": list(train_set.classes),
        **sides,
        "weights": weights if train.unit else {},
        "in_both": [list(pair) for pair in twice(train, test, train_set, test_set)],
        "notes": notes,
    }


def _sheet(examples: Examples, experiment: Experiment) -> np.ndarray:
    """Training examples after the transforms, with their masks over them, or their classes below."""
    count = min(SHOWN, len(examples))
    places = np.linspace(0, len(examples) - 1, count).astype(int).tolist()
    rows = batches.rows_at(examples, experiment.train.transforms, places)
    images, classes = rows["image"], examples.classes
    if images.ndim == 2:
        return sheet.samples(images, None, ())
    own = portrayed(experiment.train.source, images.shape[1:])
    rgb = np.stack([sheet.to_rgb(image) for image in images]) if own is None else own.picture(images)
    if "mask" not in rows:
        return sheet.sheet(Panels(images=rgb[None], guess=rows["label"][None] if "label" in rows else None), classes)
    masks = np.stack([sheet.overlay(*pair, len(classes)) for pair in zip(rgb, rows["mask"], strict=True)])
    page = sheet.sheet(Panels(images=np.stack([rgb, masks]), titles=("images", "masks")), classes)
    names = sheet.legend(classes, sorted(set(np.unique(rows["mask"]).tolist()) & set(range(len(classes)))))
    wide = max(page.shape[1], names.shape[1])
    filled = [np.pad(p, ((0, 0), (0, wide - p.shape[1]), (0, 0)), constant_values=255) for p in (page, names)]
    return np.concatenate(filled)
