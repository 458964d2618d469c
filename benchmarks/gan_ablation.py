"""Which part of R3GAN's game holds it together: uv run benchmarks/gan_ablation.py [--steps N] [--seeds S…] [--json].

Trains configs/gan/stacked_digits.py with other losses and penalties, and counts the modes of 1,000 that 26,000 samples
reach, and the KL divergence of the modes' shares from the uniform distribution: R3GAN's table 3 (arXiv:2501.05441) on
data that needs no download.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from typing import Any

import seeds

from jaxgen.adversarial.losses import NonSaturating, RelativisticPairing
from jaxgen.config import files
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.parallel.processes import use_compilation_cache

LAZY = 16  # StyleGAN2's interval of the discriminator's penalty


def variants(experiment: Experiment) -> dict[str, Experiment]:
    """Return the experiment with each loss and penalty of the table."""
    gan: Any = experiment.objective
    r1, r2 = gan.penalties
    lazy = tuple(dataclasses.replace(penalty, every=LAZY) for penalty in gan.penalties)
    games = {
        "RpGAN + R1 + R2": (RelativisticPairing(), (r1, r2)),
        "GAN + R1 + R2": (NonSaturating(), (r1, r2)),
        "RpGAN + R1": (RelativisticPairing(), (r1,)),
        "GAN + R1": (NonSaturating(), (r1,)),
        f"RpGAN + R1 + R2, each {LAZY}th step": (RelativisticPairing(), lazy),
        "RpGAN": (RelativisticPairing(), ()),
        "GAN": (NonSaturating(), ()),
    }
    rows = experiment.batch_size // gan.batch_parts
    experiments = {}
    for name, (loss, penalties) in games.items():
        changed = dataclasses.replace(gan, loss=loss, penalties=penalties)
        # The same number of real examples in each update, whether or not the generator's step takes its own.
        experiments[name] = dataclasses.replace(experiment, objective=changed, batch_size=rows * changed.batch_parts)
    return experiments


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="updates of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,))
    parser.add_argument("--only", help="train only what has this in its name")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    use_compilation_cache()
    try:
        experiment = files.load(pathlib.Path("configs/gan/stacked_digits.py"))
        games = variants(dataclasses.replace(experiment, steps=args.steps))
        rows = {
            name: seeds.over_seeds(name, game, args.seeds)
            for name, game in games.items()
            if args.only is None or args.only in name
        }
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps({"steps": args.steps, "seeds": list(args.seeds), "rows": rows}))
        return 0
    print(f"stacked digits, {args.steps} steps, seeds {', '.join(map(str, args.seeds))}; KL of perfect samples: 0.0192")
    print(*seeds.table(rows, ("modes", "kl", "paired_accuracy", "seconds")), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
