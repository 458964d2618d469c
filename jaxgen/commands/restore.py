"""`jaxgen restore`: damaged pictures in, and what they may have been, drawn by a model that never saw the damage."""

import argparse
import dataclasses
import math
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.commands import damages, generator, prompts
from jaxgen.commands.damaged import found, tried
from jaxgen.commands.output import Parser, check_folder_for, note, print_json, shown, whole, writing
from jaxgen.commands.pictures import Picture, pictures
from jaxgen.commands.restored import Job, line, written
from jaxgen.config.expression import parse_options, value
from jaxgen.data.augment import Resize
from jaxgen.data.decode import read_image
from jaxgen.data.frame import prepared
from jaxgen.data.masks import MASKS
from jaxgen.diffusion.guidance import Unguided
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.errors import UserError
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.progress import Line, counted
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.daps import WAYS, Rounds, options
from jaxgen.restoration.methods import METHODS, TRAINED
from jaxgen.restoration.operators import Scale
from jaxgen.restoration.windows import Windowed
from jaxgen.restoring import Draw, denoiser, restorer, windowed
from jaxgen.runs.restore import Restored
from jaxgen.sampling import Asked
from jaxgen.state import State

SOLVER = Ddim(eta=1.0)  # of an SDE: it forgives a net's errors, and from a noisy picture on it is exact
LEVELS = 35  # least noise levels, as many as evaluations of EDM's 18 steps


def run(prog: str, arguments: list[str]) -> None:
    """Restore pictures, and print a line for each."""
    parser = Parser(prog, "Restore pictures by a diffusion model of pixels that never saw the damage.").of_run()
    parser.add_argument(
        "images", type=pathlib.Path, nargs="+", metavar="IMAGE", help="damaged pictures, and folders of them"
    )
    damages.add_options(parser)
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--samples", type=whole, default=1, metavar="K",
        help="how many answers to draw for each picture; from 2 on also their mean and how far they are apart",
    )  # fmt: skip
    parser.add_argument("--seed", type=whole, default=0)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--resize", action="store_true", help="bring pictures of another size to the one that is needed")
    sizes.add_argument(
        "--own-size", action="store_true",
        help="give the net each whole picture at its own size, where it can, instead of windows of larger ones",
    )  # fmt: skip
    parser.add_argument(
        "--method",
        metavar="VALUE",
        help=f"{TRAINED}, or such as 'DiffPir(weight=1.0)', which takes no derivatives, or 'Daps()', which is a solver "
        "of its own",
    )
    generator.add_label(parser)
    prompts.add_options(parser)
    generator.add_options(parser)
    args = parser.parse_args(arguments)
    damages.check(args)
    if args.task == "denoise" and args.method is not None:
        raise UserError("--method is for damage other than noise, from which samples simply start; drop it")
    said = prompts.given(args)
    asked = pictures(args.images, args.out, note)
    check_folder_for(args.out)
    _check_inputs(asked, args)

    use_compilation_cache()
    opened, guide = generator.opened(args)
    generator.check(opened, {"samples": args.samples}, args.seed)
    opened = _for_posteriors(opened, args)
    work = _Work(args, opened, guide, said)
    jobs = [work.job(picture) for picture in asked]  # all of them are looked at before anything is compiled
    rows = []
    with Line(sys.stderr) as told, writing():
        for job in jobs:
            samples = np.concatenate([*counted(work.drawn(job), told.hear, "samples", args.samples)])
            rows.append(written(job, samples, args))
            if not args.json:
                print(line(rows[-1]))
    if args.json:
        print_json(
            {
                "step": opened.step, "task": args.task, "samples": args.samples, "seed": args.seed, "images": rows,
                "protocol": work.protocol(),
            }
        )  # fmt: skip


class _Work:
    """How all pictures of a command are restored. Raises UserError where the run cannot."""

    def __init__(self, args: argparse.Namespace, run: Restored, guide: State | None, said: prompts.Prompts) -> None:
        self._args, self._run, self._guide = args, run, guide
        shape, dtype = run.program.data.element["image"]
        if len(shape) != 3 or dtype != np.uint8:
            raise UserError(f"this run was trained on {dtype} arrays of shape {shape}, not on pictures")
        self._shape = shape
        self._method = None if args.task == "denoise" else value(args.method or repr(TRAINED), METHODS | WAYS)
        if isinstance(self._method, Rounds) and args.solver:
            raise UserError(f"{type(self._method).__name__} is a solver of its own; drop --solver, or take Tweedie()")
        self._inner = generator.own_guidance(run.program.generative) or Unguided()
        self._drawers: dict[tuple[Any, ...], Draw] = {}
        self._condition = self._asked(said)
        self._drawer(shape, 1.0)  # refuses a run that cannot

    def job(self, picture: Picture) -> Job:
        """Read a picture. Raises UserError where it does not fit the task, or is of another size than is needed."""
        args, name = self._args, shown(picture.path)
        grey = args.task == "colourise" and not args.trial
        pixels = read_image(picture.path, 1 if grey else self._shape[2], name)
        factor = 1 if args.trial else args.factor or 1
        if args.resize:
            pixels = self._brought(pixels, factor, name)
        shape = (pixels.shape[0] * factor, pixels.shape[1] * factor, self._shape[2])
        windows = 1 if args.own_size else self._windows(shape, factor, name)
        damaged = tried(args, pixels) if args.trial else found(args, picture.path, pixels, shape)
        if self._method is not None:
            self._method.check(damaged.damage)
        self._drawer(shape, damaged.damage.noise)
        return Job(picture, damaged, shape, windows, pixels if args.trial else None)

    def drawn(self, job: Job) -> Iterator[np.ndarray]:
        """Yield samples of a picture, in batches."""
        numbers = np.arange(self._args.samples, dtype=np.int32)
        damage, measured = job.damaged.damage, job.damaged.measured
        return self._drawer(job.shape, damage.noise)(
            self._run.state, self._guide, damage, measured, numbers, self._args.seed, self._condition
        )

    def protocol(self) -> dict[str, Any]:
        """Say how samples are drawn, and how many evaluations of the net, or products with its derivative, one takes.

        From a noisy picture on it is fewer than the schedule has, and not said.
        """
        objective = self._run.program.generative
        how = objective.protocol()
        if self._method is None:
            return how | {"method": None, "nfe": None}
        any_damage = Damage(operator=Scale(by=1.0), noise=1.0)
        held = objective.with_options(options(self._method, any_damage, jnp.zeros((1, 1)), self._inner))
        solver = repr(self._method) if isinstance(self._method, Rounds) else how["solver"]
        return how | {"method": repr(self._method), "solver": solver, "nfe": held.protocol()["nfe"]}

    def _brought(self, pixels: np.ndarray, factor: int, name: str) -> np.ndarray:
        """Return a picture at the size of which the run makes one of its own."""
        height, width = self._shape[0] // factor, self._shape[1] // factor
        if self._shape[0] % factor or self._shape[1] % factor:
            raise UserError(f"a factor of {factor} does not divide the {_by(self._shape)} of this run; drop --resize")
        if pixels.shape[:2] == (height, width):
            return pixels
        note(f"note: {name} is brought from {_by(pixels.shape)} to {height}×{width}")
        return prepared(pixels, (Resize(height, width),)).image

    def _windows(self, shape: tuple[int, ...], factor: int, name: str) -> int:
        """Return through how many windows pictures of a shape are seen. Raises UserError for too small ones."""
        if shape[0] < self._shape[0] or shape[1] < self._shape[1]:
            small, needed = (_by([side // factor for side in each[:2]]) for each in (shape, self._shape))
            made = "" if factor == 1 else f" to make {_by(self._shape)} of it"
            raise UserError(
                f"{name} is {small}, and this run needs at least {needed}{made}; --resize brings it there, "
                "--own-size restores it at its own size where the net can"
            )
        through = windowed(self._inner, self._shape, shape)
        count = math.prod(through.count(shape[0], shape[1])) if isinstance(through, Windowed) else 1
        if count > 1:
            note(f"note: {name}: {_by(shape)} pixels are seen through {count} windows of {_by(self._shape)}")
        return count

    def _drawer(self, shape: tuple[int, ...], noise: float) -> Draw:
        key = (shape, noise if self._method is None else None)
        if key not in self._drawers:
            own = self._args.own_size and shape != self._shape
            run = generator.with_size(self._run, (shape[0], shape[1])) if own else self._run
            if self._method is None:
                made = denoiser(run.program, noise=noise, inner=self._inner, shape=shape)
            else:
                made = restorer(run.program, method=self._method, inner=self._inner, shape=shape)
            self._drawers[key] = made
        return self._drawers[key]

    def _asked(self, said: prompts.Prompts) -> Asked:
        """Return what each sample is asked for: a class or a text where the net takes one, which may be no text."""
        run, numbers = self._run, np.arange(self._args.samples, dtype=np.int32)
        prompts.check(run, said)
        generator.check_negative(run, said.negative)
        given = generator.labels(run, self._args.label)
        if "label" in run.program.generative.conditions() and not given:
            raise UserError("this run's net is asked for a class: say with --label what the pictures show")
        if prompts.tokenizers(run) and not said.texts:
            said = dataclasses.replace(said, texts=("",))
        return generator.condition(run, numbers, given, said)[0]


def _for_posteriors(run: Restored, args: argparse.Namespace) -> Restored:
    """Return the run with an SDE's solver and enough noise levels, where it has them and others are not asked for."""
    objective = run.program.generative
    own = objective.protocol()
    if "guidance" not in own:
        return run  # no denoiser, as will be said
    options: dict[str, Any] = {} if args.solver else {"solver": SOLVER}
    schedule = parse_options({"schedule": own["schedule"]})["schedule"]
    steps = {field.name: getattr(schedule, field.name) for field in dataclasses.fields(schedule)}.get("steps", LEVELS)
    if not args.schedule and steps < LEVELS:
        options["schedule"] = dataclasses.replace(schedule, steps=LEVELS)
    changed = objective.with_options(options)
    changed.check_sampling(guide=args.guide is not None)
    return run.with_experiment(dataclasses.replace(run.experiment, objective=changed))


def _check_inputs(asked: Sequence[Picture], args: argparse.Namespace) -> None:
    """Raise UserError if what is written could be a picture that is read."""
    mask = set() if args.mask is None or args.mask in MASKS else {pathlib.Path(args.mask).resolve()}
    read = {picture.path.resolve() for picture in asked} | mask
    for picture in asked:
        for path in read:
            if path.parent == args.out.resolve() and path.suffix == ".png" and path.stem.startswith(picture.name):
                raise UserError(f"the results would be written over {shown(path)}; choose another folder with --out")


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape[:2]))
