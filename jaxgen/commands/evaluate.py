"""`jaxgen eval`: evaluate a checkpoint exactly, on its test data or on other data."""

import dataclasses
import os
import pathlib
import sys
from typing import Any

from jaxgen.commands import generator
from jaxgen.commands.output import Parser, note, print_json
from jaxgen.config.overrides import override
from jaxgen.data.source import Source
from jaxgen.errors import UserError
from jaxgen.evaluation import evaluate
from jaxgen.experiment import Experiment
from jaxgen.features.inception import Inception
from jaxgen.metrics import accumulators
from jaxgen.metrics.distribution import Distribution
from jaxgen.metrics.view import with_samples
from jaxgen.objective import Generative
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.progress import Line

TEST = ("--test.", "--test-batch-size")  # options that say what a run is measured on


def run(prog: str, arguments: list[str]) -> None:
    """Evaluate a run on its test data, or on other data, and print the numbers."""
    parser = Parser(prog, "Evaluate a checkpoint exactly.").of_run()
    parser.add_argument(
        "--data", type=pathlib.Path, metavar="DIR",
        help="evaluate on this folder, laid out as the test data are; --test.FIELD VALUE changes any field of these",
    )  # fmt: skip
    parser.add_argument("--samples", type=int, help="how many samples the metrics draw, instead of the config's number")
    parser.add_argument(
        "--inception-weights", type=pathlib.Path, metavar="FILE", help="measure FID with these weights (.safetensors)"
    )
    generator.add_options(parser)
    args, fields = parser.parse_known_args(arguments)
    if any(not word.startswith(TEST) for i, word in enumerate(fields) if i == 0 or word.startswith("-")):
        parser.error(f"unrecognized arguments: {' '.join(fields)}")

    use_compilation_cache()
    opened, guide = generator.opened(args)
    opened = opened.with_experiment(_elsewhere(opened.experiment, args.data, fields, prog))
    opened = opened.with_experiment(_measured(opened.experiment, args.samples, args.inception_weights))
    read = " ".join(fields if args.data is None else [str(args.data), *fields])
    say = note if not read else lambda line: None  # that other data have other numbers is no news
    with Line(sys.stderr) as line:
        results = evaluate(opened.program, opened.state, guide, say, line.hear)
    if args.json:
        return print_json({"step": opened.step, "metrics": results} | ({"data": read} if read else {}))
    print(f"step {opened.step}" + (f" on {read}" if read else ""))
    print(*accumulators.table(results), sep="\n")


def _elsewhere(experiment: Experiment, folder: pathlib.Path | None, fields: list[str], prog: str) -> Experiment:
    """Return the experiment with the test data in another folder, and with the fields of its test pipeline changed."""
    if folder is not None:
        source = in_folder(experiment.test.source, folder)
        experiment = dataclasses.replace(experiment, test=dataclasses.replace(experiment.test, source=source))
    return override(experiment, fields, prog) if fields else experiment


def in_folder(source: Any, folder: pathlib.Path) -> Source:
    """Return a source of folders that reads all of another folder, which is laid out alike.

    Raises UserError if the folder is not there, or the source reads no folder.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; --data wants one that is laid out as the test data are")
    own: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(source)}
    changed: dict[str, Any] = {name: None for name in ("split", "ids") if name in own and own[name] is None}
    if {"images", "masks"} <= own.keys():
        places = {name: os.path.abspath(os.path.expanduser(getattr(source, name))) for name in ("images", "masks")}
        root = os.path.commonpath(list(places.values()))
        changed |= {name: str(folder / os.path.relpath(place, root)) for name, place in places.items()}
    elif "path" in own:
        changed["path"] = str(folder)
    else:
        raise UserError(
            f"{type(source).__name__} reads no folder, so that --data has none to replace; "
            "change the test data with --test.source.FIELD VALUE"
        )
    return dataclasses.replace(source, **changed)


def _measured(experiment: Experiment, samples: int | None, inception: pathlib.Path | None) -> Experiment:
    """Return the experiment with metrics of this many samples, and with FID instead of other Fréchet distances.

    FID is measured on 50,000 samples against the train split, as published ones are, unless `samples` says otherwise.
    Raises UserError if the experiment has no metrics of samples, or the weights are no file.
    """
    metrics = experiment.metrics
    if inception is not None:
        if not isinstance(experiment.objective, Generative):
            raise UserError(f"{type(experiment.objective).__name__} makes no samples, which FID compares with the data")
        if not inception.is_file():
            raise UserError(f"there is no file {inception}; --inception-weights wants a .safetensors file")
        fid = Distribution(features=Inception(weights=str(inception)), samples=50_000, reference="train")
        metrics = (fid, *(metric for metric in metrics if not isinstance(metric, Distribution)))
    if samples is not None:
        metrics = with_samples(metrics, samples)
    return dataclasses.replace(experiment, metrics=metrics)
