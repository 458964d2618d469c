"""`jaxgen eval`: evaluate a checkpoint exactly."""

import dataclasses
import pathlib

from jaxgen.commands import generator
from jaxgen.commands.output import Parser, print_json
from jaxgen.errors import UserError
from jaxgen.evaluation import evaluate
from jaxgen.experiment import Experiment
from jaxgen.features.inception import Inception
from jaxgen.metrics import accumulators
from jaxgen.metrics.distribution import Distribution
from jaxgen.metrics.view import with_samples
from jaxgen.objective import Generative
from jaxgen.parallel.processes import use_compilation_cache


def run(prog: str, arguments: list[str]) -> None:
    """Evaluate a run on its test data and print the numbers."""
    parser = Parser(prog, "Evaluate a checkpoint exactly.").of_run()
    parser.add_argument("--samples", type=int, help="how many samples the metrics draw, instead of the config's number")
    parser.add_argument(
        "--inception-weights", type=pathlib.Path, metavar="FILE", help="measure FID with these weights (.safetensors)"
    )
    generator.add_options(parser)
    args = parser.parse_args(arguments)

    use_compilation_cache()
    opened, guide = generator.opened(args)
    opened = opened.with_experiment(_measured(opened.experiment, args.samples, args.inception_weights))
    results = evaluate(opened.program, opened.state, guide)
    if args.json:
        return print_json({"step": opened.step, "metrics": results})
    print(f"step {opened.step}")
    print(*accumulators.table(results), sep="\n")


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
