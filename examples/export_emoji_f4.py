"""Write the weights of a trained emoji_f4 to the file that `jaxgen.weights.shipped` reads.

uv run train.py configs/autoencoder/emoji_f4.py
uv run examples/export_emoji_f4.py runs/emoji_f4 [FILE]
"""

import pathlib
import sys

import jax

from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore
from jaxgen.weights import shipped


def main() -> None:
    folder, path = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2] if sys.argv[2:] else shipped.WEIGHTS)
    run = restore(RunFolder(folder), None, print)
    net = jax.device_get(run.state.nets["net"])
    shipped.write_emoji_f4({"params": net.best_params, **net.stats}, path)
    print(f"{path}: {path.stat().st_size} bytes, from step {run.step} of {folder}")


if __name__ == "__main__":
    main()
