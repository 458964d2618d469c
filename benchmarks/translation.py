"""Does a translation find the truth that it was never shown? uv run benchmarks/translation.py RUN… [--out FILE.png].

RUN is a run of configs/translation/emoji_painted.py, of any seed and with any fields changed, or of another whose test
data hold the true translation; after it, runs of configs/translation/emoji_painted_edm.py, whose diffusion model knows
both domains: it noises pictures and denoises them as domain b (SDEdit), and follows them as domain a to their noise and
makes that into pictures of domain b (DDIB). Prints, for each run and for what it has to beat:

l1 and psnr, to the truth, of values in [-1, 1]; found, the share of translations to which, of all true ones, their own
is the nearest; kept, the mean SSIM of Y to the picture itself, which the turn of hues leaves as it is; fd, the Fréchet
distance to the target domain's training pictures in thumbnails of 4×4 pixels. `--out` draws a strip.
"""

import argparse
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, UInt8
from skimage.exposure import match_histograms

from jaxgen.editing import editable
from jaxgen.errors import UserError
from jaxgen.metrics import fidelity, reconstruction, retrieval
from jaxgen.noise import numbered
from jaxgen.objective import Editable
from jaxgen.parallel.processes import use_compilation_cache
from jaxgen.pictures import sheet
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import to_float
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import Restored, restore
from jaxgen.state import State

THUMBNAIL, COLUMNS = 4, 10
STRENGTHS = (0.3, 0.5, 0.7)  # of SDEdit: the share of noise
A, B = 0, 1  # classes of `EitherDomain`
Pictures = UInt8[np.ndarray, "n h w c"]
Row = dict[str, Any]


def stacked(examples: Any, key: str) -> Pictures:
    return np.stack([examples[i][key] for i in range(len(examples))])


def matched(source: Pictures, domain: Pictures) -> Pictures:
    """Give pictures, all of them together, the histograms of a domain, channel by channel."""
    flat = [x.reshape(-1, *x.shape[2:]) for x in (source, domain)]
    return match_histograms(*flat, channel_axis=-1).round().clip(0, 255).astype(np.uint8).reshape(source.shape)


def thumbnails(x: Pictures) -> Float32[np.ndarray, "n d"]:
    n, h, w, c = x.shape
    cells = x.reshape(n, THUMBNAIL, h // THUMBNAIL, THUMBNAIL, w // THUMBNAIL, c).mean((2, 4))
    return (cells.reshape(n, -1) / 127.5 - 1).astype(np.float32)


def measured(name: str, made: Pictures, source: Pictures, truth: Pictures, domain: Pictures) -> Row:
    """Return one row of the table."""
    x, a, b = (np.asarray(pictures, np.float32) / 127.5 - 1 for pictures in (made, source, truth))
    rank = retrieval.ranks(retrieval.squared(x, b), np.arange(len(x)))
    return {
        "name": name,
        "l1": float(np.abs(x - b).mean()),
        "psnr": float(reconstruction.psnr(jnp.asarray(b), jnp.asarray(x)).mean()),
        "found": float((rank == 0).mean()),
        "kept": float(reconstruction.ssim_y(jnp.asarray(a), jnp.asarray(x), 0).mean()),
        "fd_thumbnails": fidelity.frechet_distance(thumbnails(domain), thumbnails(made)),
    }


def translated(name: str, run: Restored, source: Pictures) -> dict[str, Pictures]:
    """Translate pictures to b, in batches of the run's, in each way that the run has; by the ways' names."""
    size = run.experiment.test_batch_size
    batches = [source[i : i + size] for i in range(0, len(source), size)]

    def rows(translate: Callable[[Any], Any]) -> Pictures:
        return sheet.to_bytes(np.concatenate([np.asarray(translate(batch)) for batch in batches]))

    if not isinstance(run.program.objective, Editable):
        return {name: rows(functools.partial(_predicted, run))}
    made = {f"{name}, SDEdit {x:g}": rows(_noised(run, x)) for x in STRENGTHS}
    return made | {f"{name}, DDIB": rows(_by_noise(run))}


def _predicted(run: Restored, batch: Pictures) -> Any:
    prediction: Any = run.program.predict(run.state, batch)
    return prediction.pixels


def _noised(run: Restored, strength: float) -> Callable[[Pictures], Any]:
    """Return what noises pictures as far as `strength` says, and denoises them as pictures of b."""
    objective = editable(run.program)

    def f(state: State, x: jax.Array, number: jax.Array, b: jax.Array) -> jax.Array:
        keys = numbered(jax.random.key(0), number)
        noise = objective.noise(keys, x.shape[1:])
        return objective.edit(state, x, noise, keys, {"label": b}, None, strength=strength)

    compiled = run.program.map(f)
    return lambda batch: compiled(run.state, to_float(batch), *_numbers(len(batch), B))


def _by_noise(run: Restored) -> Callable[[Pictures], Any]:
    """Return what follows pictures, as those of a, to their noise, and makes pictures of b of that."""
    objective = editable(run.program)

    def f(state: State, x: jax.Array, number: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
        keys = numbered(jax.random.key(0), number)
        return objective.generate(state, objective.invert(state, x, {"label": a}), keys, {"label": b})

    compiled = run.program.map(f)
    return lambda batch: compiled(run.state, to_float(batch), *_numbers(len(batch), A, B))


def _numbers(rows: int, *labels: int) -> list[np.ndarray]:
    return [np.arange(rows, dtype=np.int32), *(np.full(rows, label, np.int32) for label in labels)]


def compared(paths: Sequence[pathlib.Path]) -> tuple[dict[str, Pictures], Pictures]:
    """Return what is made of the test pictures, by name, the first and the last their own and the truth; and domain b.

    Raises UserError where the truth is not known.
    """
    runs = {path.name: restore(RunFolder(path), None, lambda line: print(line, file=sys.stderr)) for path in paths}
    experiment = next(iter(runs.values())).experiment
    train, test = experiment.train.source.open(), experiment.test.source.open()
    if "target" not in test[0]:
        raise UserError(f"{paths[0]}: the test data do not hold the true translation, `target`")
    source, truth, domain = stacked(test, "source"), stacked(test, "target"), stacked(train, "image")
    made = {"nothing": source, "histogram matching": matched(source, domain)}
    for name, run in runs.items():
        made |= translated(name, run, source)
    return made | {"the true map": truth}, domain


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path, nargs="+", metavar="RUN")
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.png")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    try:
        made, domain = compared(args.runs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    source, truth = made["nothing"], made["the true map"]
    rows = [measured(name, pictures, source, truth, domain) for name, pictures in made.items()]
    if args.json:
        print(json.dumps(rows))
    else:
        print(f"{'':<36}{'l1':>8}{'psnr':>8}{'found':>8}{'kept':>8}{'fd':>8}")
        for row in rows:
            l1, psnr, found, kept, fd = list(row.values())[1:]
            print(f"{row['name']:<36}{l1:>8.3f}{psnr:>8.1f}{found:>8.2f}{kept:>8.3f}{fd:>8.3f}")
    if args.out:
        spread = np.linspace(0, len(truth) - 1, COLUMNS).astype(int)
        shown = np.stack([pictures[spread] for pictures in made.values()]).astype(np.float32) / 127.5 - 1
        sheet.save(args.out, sheet.sheet(Panels(images=shown, titles=tuple(made)), ()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
