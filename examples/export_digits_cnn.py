"""Write the weights of a trained digits_cnn to the file that `jaxgen.features.digits_cnn` reads.

uv run train.py configs/classification/digits_cnn.py
uv run examples/export_digits_cnn.py runs/digits_cnn [FILE]
"""

import pathlib
import sys

import jax

from jaxgen.features import digits_cnn
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore


def main() -> None:
    folder, path = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2] if sys.argv[2:] else digits_cnn.WEIGHTS)
    run = restore(RunFolder(folder), None, print)
    net = jax.device_get(run.state.nets["net"])
    digits_cnn.write({"params": net.best_params, **net.stats}, path)
    print(f"{path}: {path.stat().st_size} bytes, from step {run.step} of {folder}")


if __name__ == "__main__":
    main()
