"""`jaxgen restore`: damaged pictures in, and what they may have been, drawn by a model that never saw the damage."""

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.commands import damages, generator, prompts, sample_files
from jaxgen.commands.output import Parser, check_folder_for, note, print_json, shown, whole, writing
from jaxgen.commands.pictures import Picture, pictures
from jaxgen.config.expression import parse_options, value
from jaxgen.data.augment import Resize
from jaxgen.data.decode import read_image
from jaxgen.data.frame import prepared
from jaxgen.diffusion.guidance import Unguided
from jaxgen.diffusion.stochastic import Ddim
from jaxgen.errors import UserError
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.progress import Line, counted
from jaxgen.restoration.damage import Damage
from jaxgen.restoration.guidance import Restoring
from jaxgen.restoration.methods import METHODS, TRAINED
from jaxgen.restoration.operators import Scale
from jaxgen.restoring import Draw, denoiser, restorer
from jaxgen.runs.restore import Restored
from jaxgen.sampling import Asked
from jaxgen.state import State

SOLVER = Ddim(eta=1.0)  # of an SDE: it forgives a net's errors, and from a noisy picture on it is exact
LEVELS = 35  # least noise levels, as many as evaluations of EDM's 18 steps
STRIP = 8  # most samples in a strip


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
    sizes.add_argument("--own-size", action="store_true", help="restore each at its own size, where the net can")
    parser.add_argument(
        "--method", metavar="VALUE", help=f"{TRAINED}, or such as 'DiffPir(weight=1.0)', which takes no derivatives"
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
    with Line(sys.stderr) as line, writing():
        for job in jobs:
            samples = np.concatenate([*counted(work.drawn(job), line.hear, "samples", args.samples)])
            rows.append(_written(job, samples, args))
            if not args.json:
                print(_line(rows[-1]))
    if args.json:
        print_json(
            {
                "step": opened.step, "task": args.task, "samples": args.samples, "seed": args.seed, "images": rows,
                "protocol": work.protocol(),
            }
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Job:
    """One picture, and what is known of it."""

    picture: Picture
    pixels: np.ndarray  # u8[i j k], as it is restored
    damage: Damage
    shape: tuple[int, ...]  # of what is restored

    @property
    def measured(self) -> np.ndarray:
        """Return the damaged picture f32[1 i j k] in [-1, 1]."""
        return self.pixels[None].astype(np.float32) / 127.5 - 1


class _Work:
    """How all pictures of a command are restored. Raises UserError where the run cannot."""

    def __init__(self, args: argparse.Namespace, run: Restored, guide: State | None, said: prompts.Prompts) -> None:
        self._args, self._run, self._guide = args, run, guide
        shape, dtype = run.program.data.element["image"]
        if len(shape) != 3 or dtype != np.uint8:
            raise UserError(f"this run was trained on {dtype} arrays of shape {shape}, not on pictures")
        self._shape = shape
        self._method = None if args.task == "denoise" else value(args.method or repr(TRAINED), METHODS)
        self._inner = generator.own_guidance(run.program.generative) or Unguided()
        self._damage = damages.damage_of(args)
        self._drawers: dict[tuple[int, ...], Draw] = {}
        self._condition = self._asked(said)
        self._drawer(shape)  # refuses a run that cannot
        if self._method is not None and not args.own_size:
            self._method.check(self._damage(shape))

    def job(self, picture: Picture) -> _Job:
        """Read a picture. Raises UserError where it does not fit the task, or is of another size than is needed."""
        name = shown(picture.path)
        shape = self._own(picture) if self._args.own_size else self._shape
        damage = self._damage(shape)
        wanted = damage.operator.measures(shape)
        pixels = read_image(picture.path, wanted[-1], name)
        if pixels.shape != wanted and self._args.resize:
            note(f"note: {name} is brought from {_by(pixels.shape)} to {_by(wanted)}")
            pixels = prepared(pixels, (Resize(*wanted[:2]),)).image
        if pixels.shape != wanted:
            made = "" if wanted[:2] == shape[:2] else f" to make {_by(shape)} of it"
            raise UserError(
                f"{name} is {_by(pixels.shape)}, and this run needs {_by(wanted)}{made}; --resize brings it there, "
                "--own-size restores it at its own size where the net can"
            )
        self._drawer(shape)
        return _Job(picture, pixels, damage, shape)

    def drawn(self, job: _Job) -> Iterator[np.ndarray]:
        """Yield samples of a picture, in batches."""
        numbers = np.arange(self._args.samples, dtype=np.int32)
        return self._drawer(job.shape)(
            self._run.state, self._guide, job.damage, job.measured, numbers, self._args.seed, self._condition
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
        held = Restoring(damage=any_damage, measured=jnp.zeros((1, 1)), method=self._method, inner=self._inner)
        nfe = objective.with_options({"guidance": held}).protocol()["nfe"]
        return how | {"method": repr(self._method), "nfe": nfe}

    def _own(self, picture: Picture) -> tuple[int, ...]:
        """Return the shape of what a picture at its own size is restored to."""
        height, width = read_image(picture.path, self._shape[-1], shown(picture.path)).shape[:2]
        factor = self._args.factor or 1
        return height * factor, width * factor, self._shape[-1]

    def _drawer(self, shape: tuple[int, ...]) -> Draw:
        if shape not in self._drawers:
            run = self._run if shape == self._shape else generator.with_size(self._run, (shape[0], shape[1]))
            if self._method is None:
                self._drawers[shape] = denoiser(run.program, noise=2 * self._args.sigma)
            else:
                self._drawers[shape] = restorer(run.program, method=self._method, inner=self._inner)
        return self._drawers[shape]

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


def _written(job: _Job, samples: np.ndarray, args: argparse.Namespace) -> dict[str, Any]:
    """Write what was made of a picture, and return where, and how well it fits."""
    files = {"out": args.out / f"{job.picture.name}.png", "strip": args.out / f"{job.picture.name}_strip.png"}
    mean, spread = samples.mean(0), samples.std(0)
    most = float(spread.max()) or 1.0
    files["out"].parent.mkdir(parents=True, exist_ok=True)
    own = functools.partial(sample_files.own_channels, alpha=True)
    sheet.save(files["out"], own(samples[:1])[0])
    if len(samples) > 1:
        files |= {name: args.out / f"{job.picture.name}_{name}.png" for name in ("mean", "spread")}
        sheet.save(files["mean"], own(mean[None])[0])
        sheet.save(files["spread"], own(2 * spread[None] / most - 1)[0])
        for k, sample in enumerate(samples):
            sheet.save(args.out / f"{job.picture.name}_sample_{k}.png", own(sample[None])[0])
    sheet.save(files["strip"], _strip(job, samples, mean, 2 * spread / most - 1))
    row: dict[str, Any] = {"image": shown(job.picture.path), **{name: shown(file) for name, file in files.items()}}
    if len(samples) > 1:
        row["spread_white"] = most / 2  # in the units of 0..1
    measured = jnp.asarray(job.measured.repeat(len(samples), 0))
    mismatch = np.asarray(job.damage.mismatch(jnp.asarray(samples), measured))
    return row | {"mismatch": float(np.sqrt(np.square(mismatch).mean())) / job.damage.noise}


def _strip(job: _Job, samples: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Lay the picture as it was, and what was made of it, side by side with words."""
    before = sample_files.picture(job.measured, alpha=True)
    zoom = job.shape[0] // before.shape[1]
    before = before.repeat(zoom, 1).repeat(zoom, 2)
    shown_samples = sample_files.picture(samples[:STRIP], alpha=True)
    columns = ["before", *(["after"] if len(samples) == 1 else [f"after, {k + 1}" for k in range(len(shown_samples))])]
    images = [before, shown_samples]
    if len(samples) > 1:
        images += [sample_files.picture(one[None], alpha=True) for one in (mean, spread)]
        columns += [f"mean of {len(samples)}", "spread"]
    return sheet.sheet(Panels(images=np.concatenate(images)[None], columns=tuple(columns)), ())


def _line(row: dict[str, Any]) -> str:
    """Say for a person what was made."""
    return f"{row['image']}  fits to {row['mismatch']:.2f} of the noise  ->  {row['strip']}"


def _check_inputs(asked: Sequence[Picture], args: argparse.Namespace) -> None:
    """Raise UserError if what is written could be a picture that is read."""
    read = {picture.path.resolve() for picture in asked} | ({args.mask.resolve()} if args.mask else set())
    for picture in asked:
        for path in read:
            if path.parent == args.out.resolve() and path.suffix == ".png" and path.stem.startswith(picture.name):
                raise UserError(f"the results would be written over {shown(path)}; choose another folder with --out")


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape[:2]))
