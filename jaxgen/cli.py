"""The two commands: `train.py CONFIG` trains, `jaxgen` does everything with what training left behind."""

import argparse
import dataclasses
import json
import logging
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxgen.errors import UserError


def train(arguments: Sequence[str] | None = None) -> int:
    """Run `train.py CONFIG [--run-dir DIR] [--a.b.c VALUE …]` and return the exit status."""
    return _guarded(lambda: _train(sys.argv[1:] if arguments is None else list(arguments)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `jaxgen COMMAND …` and return the exit status."""
    parser = _parser()
    given, given.fields = parser.parse_known_args(arguments)
    if given.fields and given.run is not _plan:
        parser.error(f"unrecognized arguments: {' '.join(given.fields)}")
    return _guarded(lambda: given.run(given))


def _guarded(run: Callable[[], None]) -> int:
    """Turn a user's mistake into its one or two lines and status 2, a signal into its status."""
    # Imported late, for `--help` to be quick.
    from jaxgen.parallel.processes import spare_libtpu
    from jaxgen.runs.signals import Interrupted

    spare_libtpu()

    # Libraries report through absl what we report ourselves.
    logging.getLogger("absl").setLevel(logging.ERROR)
    try:
        run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        return interrupted.status
    except KeyboardInterrupt:
        print("stopped at once; the last checkpoint is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def use_compilation_cache() -> None:
    """Keep compiled programs between runs; set before the first array is made.

    JAX_COMPILATION_CACHE_DIR names another folder than ~/.cache/jaxgen/xla.
    """
    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "jaxgen" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def _train(arguments: list[str]) -> None:
    usage = "usage: train.py CONFIG [--run-dir DIR] [--FIELD VALUE …]; train.py CONFIG --help lists the fields"
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage)
        return
    if arguments[0].startswith("-"):
        raise UserError(f"the config comes first. {usage}")
    from jaxgen import loop
    from jaxgen.config import files, overrides
    from jaxgen.parallel import processes
    from jaxgen.runs.folder import RunFolder

    path, rest = pathlib.Path(arguments[0]), arguments[1:]
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    own.add_argument("--run-dir", type=pathlib.Path, default=pathlib.Path("runs") / path.stem)
    try:
        given, rest = own.parse_known_args(rest)
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from error
    experiment = overrides.override(files.load(path), rest, prog=f"train.py {path}")
    processes.initialize()
    use_compilation_cache()
    folder = RunFolder(given.run_dir)
    loop.train(experiment, folder)
    if processes.is_main_process():
        print(f"run folder: {folder.path}")


def _list(given: argparse.Namespace) -> None:
    from jaxgen.config import files

    rows = [(f"{path.parent.name}/{path.stem}", *files.summary(path)) for path in files.find()]
    if given.json:
        return _print_json({"configs": [dict(zip(("name", "summary", "promise"), row, strict=True)) for row in rows]})
    wide = max((len(name) for name, _, _ in rows), default=0)
    for name, what, promise in rows:
        print(f"{name:<{wide}}  {what} {promise}")


def _eval(given: argparse.Namespace) -> None:
    from jaxgen.evaluation import evaluate, with_samples
    from jaxgen.metrics import accumulators

    use_compilation_cache()
    run, weak = _generator(given)
    experiment = with_samples(run.experiment, given.samples, given.inception_weights)
    results = evaluate(dataclasses.replace(run, experiment=experiment), weak and weak.state)
    if given.json:
        return _print_json({"step": run.step, "metrics": results})
    print(f"step {run.step}")
    for line in accumulators.table(results):
        print(line)


def _sample(given: argparse.Namespace) -> None:
    from jaxgen.sampling import sample

    use_compilation_cache()
    run, weak = _generator(given)
    made = sample(run, given.n, given.seed, given.out, given.npz, weak=weak, label=given.label)
    if given.json:
        return _print_json({"step": run.step, **made})
    print(f"{made['n']} samples of step {run.step}, seed {made['seed']}  ->  {made['out']}")


def _interpolate(given: argparse.Namespace) -> None:
    from jaxgen.sampling import interpolate

    use_compilation_cache()
    run, weak = _generator(given)
    made = interpolate(run, given.n, given.frames, given.seed, given.out, weak=weak, label=given.label)
    if given.json:
        return _print_json({"step": run.step, **made})
    print(f"{made['n']} ways between samples of step {run.step}, seed {made['seed']}  ->  {made['out']}")


def _generator(given: argparse.Namespace) -> tuple[Any, Any]:
    """Take up the run, and with --weak the worse one, and change the way it makes samples as the options say."""
    from jaxgen.config import expression
    from jaxgen.objective import Generative
    from jaxgen.runs.folder import RunFolder
    from jaxgen.runs.restore import restore, with_average

    folder = RunFolder(given.folder)
    run = restore(folder, given.step, _note)
    weak = restore(RunFolder(given.weak), None, _note) if given.weak else None
    texts = {name: getattr(given, name) for name in ("solver", "grid", "guidance")}
    experiment = expression.with_truncation(expression.with_sampling(run.experiment, texts), given.truncation)
    run = dataclasses.replace(run, experiment=experiment)
    objective = run.experiment.objective
    if isinstance(objective, Generative):
        objective.check_sampling(weak=weak is not None)
    if given.ema is not None:
        run = with_average(run, folder, given.ema)
    return run, weak


def _predict(given: argparse.Namespace) -> None:
    from jaxgen.commands.predict import predict
    from jaxgen.runs.folder import RunFolder
    from jaxgen.runs.restore import restore

    use_compilation_cache()
    run = restore(RunFolder(given.folder), given.step, _note)
    rows = predict(run, given.images, given.out)
    if given.json:
        return _print_json({"step": run.step, "images": rows})
    for row in rows:
        if "top5" in row:
            print(row["image"], *(f"{guess['class']} {guess['probability']:.3f}" for guess in row["top5"]), sep="  ")
        else:
            shares = "  ".join(f"{name} {share:.1%}" for name, share in row["classes"].items())
            print(f"{row['image']}  {shares}  ->  {row['overlay']}")


def _inspect(given: argparse.Namespace) -> None:
    from jaxgen import tree
    from jaxgen.parallel import rules
    from jaxgen.runs.folder import RunFolder
    from jaxgen.runs.restore import restore

    run = restore(RunFolder(given.folder), given.step, _note)
    nets = {name: tree.count(net.params) for name, net in run.state.nets.items()}
    arrays = [
        {"path": path, "shape": list(leaf.shape), "dtype": str(leaf.dtype), "spec": str(leaf.sharding.spec)}
        for path, leaf in tree.leaves(run.state)
    ]
    found = {"step": run.step, "parameters": sum(nets.values()), "nets": nets, "digest": tree.digest(run.state)}
    if given.json:
        return _print_json(found | {"arrays": arrays})
    print(*rules.table(run.state), sep="\n")
    print(f"step {found['step']}  parameters {found['parameters']:,}  digest {found['digest']}")


def _plan(given: argparse.Namespace) -> None:
    from jaxgen.config import files, overrides
    from jaxgen.data import batches
    from jaxgen.parallel import rules
    from jaxgen.plan import fake_data, planner, scaling, topologies
    from jaxgen.runs.folder import Data

    if not (given.topology or given.scale):
        raise UserError("say where: --topology v5e:4x4, --topology cpu:16, or --scale v5e:4x4,v5e:8x8")
    experiment = overrides.override(files.load(given.config), given.fields, prog=f"jaxgen plan {given.config}")
    names = given.scale.split(",") if given.scale else [given.topology]
    places = [topologies.topology(name, experiment.mesh.slices) for name in names]
    experiment, origin = fake_data.with_data(experiment, given.image)
    opened = experiment.train.source.open()
    data = Data(opened.classes, batches.element(opened, experiment.train.transforms))
    say = _note if given.json else print
    if given.scale:
        rows = scaling.scale(experiment, data, places, given.batch_per_chip, _note)
        if given.out:
            scaling.draw(rows, f"{given.config.parent.name}/{given.config.stem}").savefig(given.out, dpi=120)
        return _print_json({"rows": rows, "data": origin}) if given.json else print(*scaling.table(rows), sep="\n")
    (where,) = places
    if not any(field.startswith("--batch-size") for field in given.fields):  # one that was asked for is kept
        experiment, notes = planner.dividing(experiment, where)
        for note in notes:
            _note(note)
    if given.table:
        say("\n".join(rules.table(planner.assembled(experiment, data, where).shapes)))
    told = planner.plan(experiment, data, where, thorough=given.thorough) | {"data": origin}
    if not given.json:
        print(*planner.lines(told), sep="\n")
    if given.sample:
        told["sample"] = planner.plan_sampling(experiment, data, where)
        if not given.json:
            print("sampling", *planner.sampling_lines(told["sample"]), sep="\n")
    if given.search:
        told["search"] = scaling.search(experiment, data, where, say)
        if not given.json:
            print(f"largest batch that fits: {told['search']['largest_batch']}")
    if given.json:
        _print_json(told)


def size(text: str) -> tuple[int, int, int]:
    """Read a picture's height, width and channels from 256x256x3."""
    height, width, channels = (int(n) for n in text.split("x"))
    return height, width, channels


def _doctor(given: argparse.Namespace) -> None:
    from jaxgen.commands import doctor

    use_compilation_cache()
    found = doctor.examine()
    if given.json:
        return _print_json(found)
    print(*doctor.lines(found), sep="\n")


def _print_json(data: Any) -> None:
    print(json.dumps(data))


def _note(line: str) -> None:
    print(line, file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message}\n{self.format_usage()}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxgen", description="Look at, measure and use what train.py made.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str, *, of_run: bool) -> Any:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        made.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
        if of_run:
            made.add_argument("folder", type=pathlib.Path, metavar="RUN", help="a run folder")
            made.add_argument("--step", type=int, help="which checkpoint; the newest by default")
        return made

    command("list", _list, "every config, with what it promises and what that costs", of_run=False)
    made = command("eval", _eval, "evaluate a checkpoint exactly", of_run=True)
    made.add_argument("--samples", type=int, help="how many samples the measures draw, in place of the config's number")
    made.add_argument(
        "--inception-weights", type=pathlib.Path, metavar="FILE", help="measure FID with these weights (.safetensors)"
    )
    _of_samples(made)
    made = command("sample", _sample, "draw samples; sample i depends on the seed and on i only", of_run=True)
    made.add_argument("--n", type=int, default=64, help="how many")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE.png", help="a picture of them")
    made.add_argument("--npz", type=pathlib.Path, metavar="FILE.npz", help="their values: samples, and labels if any")
    made.add_argument("--label", type=int, help="the class of all of them; without it, all classes in turn")
    _of_samples(made)
    made = command("interpolate", _interpolate, "go from sample to sample, as rows of pictures or a film", of_run=True)
    made.add_argument("--n", type=int, default=6, help="how many samples to go through")
    made.add_argument("--frames", type=int, default=8, help="pictures on each way")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=pathlib.Path, required=True, metavar="FILE", help="a .png, or a .gif that moves")
    made.add_argument("--label", type=int, help="the class of all of them; without it, each way keeps its own")
    _of_samples(made)
    made = command("predict", _predict, "classify or segment images of any size", of_run=True)
    made.add_argument("images", type=pathlib.Path, nargs="+", metavar="IMAGE")
    made.add_argument("--out", type=pathlib.Path, required=True, help="folder for masks, overlays and legends")
    command("inspect", _inspect, "step, parameter counts, shardings, digest of the training state", of_run=True)
    made = command("plan", _plan, "compile the train step for devices that are not here: memory, speed", of_run=False)
    made.add_argument("config", type=pathlib.Path, metavar="CONFIG", help="any of its fields follow, as for train.py")
    made.add_argument("--topology", help="such as v5e:4x4, v5p:8x8x8, v6e:16x16, or cpu:256 for fake devices")
    made.add_argument("--sample", action="store_true", help="plan the drawing of samples too")
    made.add_argument("--search", action="store_true", help="find the largest batch that fits, and what would fit more")
    made.add_argument("--scale", metavar="A,B,…", help="topologies to compare, in the place of --topology")
    made.add_argument("--batch-per-chip", type=int, help="with --scale: let the batch grow with the chips")
    made.add_argument("--out", type=pathlib.Path, metavar="FILE.png", help="with --scale: a picture of it")
    made.add_argument("--thorough", action="store_true", help="optimize long programs fully, which takes minutes more")
    made.add_argument("--table", action="store_true", help="say where each array of the state lies")
    made.add_argument("--image", type=size, metavar="HxWxC", help="the pictures' size, where nothing tells it")
    command("doctor", _doctor, "versions, devices, cache, extras; what is missing and how to get it", of_run=False)
    return parser


def _of_samples(command: argparse.ArgumentParser) -> None:
    command.add_argument("--solver", metavar="VALUE", help="solver of a diffusion model, such as 'Dpm2M()'")
    command.add_argument("--grid", metavar="VALUE", help="its noise levels, such as 'Rho(steps=10)'")
    command.add_argument("--guidance", metavar="VALUE", help="such as 'ClassifierFree(scale=2)'")
    command.add_argument("--truncation", type=float, metavar="PSI", help="of a GAN: truer and less varied below 1")
    command.add_argument("--ema", type=float, metavar="WIDTH", help="relative width of an average made of snapshots")
    command.add_argument("--weak", type=pathlib.Path, metavar="RUN", help="a worse model, for Autoguidance")
