"""Execute the notebooks: from each .py in the percent format, in a clean kernel, to the .ipynb beside it.

uv run --extra docs notebooks/execute.py                     all of them
uv run --extra docs notebooks/execute.py 3_gan --out /tmp    one of them, and leave the .ipynb here alone
uv run --extra docs notebooks/execute.py --short --out /tmp  with less training: whether each cell runs
"""

import argparse
import os
import pathlib
import re
import resource
import sys
import tempfile
import time

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from traitlets.config import Config

HERE = pathlib.Path(__file__).resolve().parent
NAMES = sorted(path.stem for path in HERE.glob("[0-9]*.py"))
LIMIT = 1200  # seconds that one cell may take
KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# What is trained less in the short form, and what then stands there.
SHORT = {
    "1_classification_vs_segmentation": {
        "steps=300": "steps=30",
        "steps=310": "steps=30",
        "SCENES = 256": "SCENES = 64",
    },
    "2_cnn_to_fcn": {
        "steps=300": "steps=30",
        "{32: 40, 16: 110, 8: 150}": "{32: 10, 16: 10, 8: 10}",
        "SCENES = 256": "SCENES = 64",
    },
    "3_gan": {"\nSTEPS = 6000": "\nSTEPS = 800", "DIGIT_STEPS = 1600": "DIGIT_STEPS = 120", "100, 400,": "50, 100,"},
    "4_diffusion": {"POINT_STEPS = 2000": "POINT_STEPS = 400", "DIGIT_STEPS = 400": "DIGIT_STEPS = 80"},
    "5_functional_training": {"steps=200": "steps=50", "v5e:16x16": "v5e:4x4"},
}
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute the notebooks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument(
        "--out", type=pathlib.Path, default=HERE, help="folder of the .ipynb; beside the .py by default"
    )
    parser.add_argument("--short", action="store_true", help="train less; nothing is written beside the .py")
    args = parser.parse_args()
    if args.short and args.out.resolve() == HERE:
        parser.error("--short needs --out DIR: the .ipynb here hold what the whole training gives")
    names = [pathlib.Path(name).stem for name in args.names] or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"there is no notebook {unknown[0]}; there are {', '.join(NAMES)}")
    # The same figures wherever they are made: on the CPU, and without XLA's remarks on how fast the machine is.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    args.out.mkdir(parents=True, exist_ok=True)
    wrong = [reason for name in names if (reason := executed(name, args.out, SHORT[name] if args.short else {}))]
    if wrong:
        sys.exit("\n".join(wrong))


def executed(name: str, out: pathlib.Path, changed: dict[str, str]) -> str:
    """Execute one notebook and write it, and return what went wrong: an exception, or a word on standard error.

    `changed` says what stands there for a text that its source has once.
    """
    source = (HERE / f"{name}.py").read_text()
    for text, other in changed.items():
        if source.count(text) != 1:
            return f"{name}: {text.strip()!r} is there {source.count(text)} times, not once; see SHORT in execute.py"
        source = source.replace(text, other)
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(KERNEL)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
    client = NotebookClient(
        notebook,
        timeout=LIMIT,
        kernel_name="python3",
        resources={"metadata": {"path": str(HERE.parent)}},
        record_timing=False,
    )
    began, cpu = time.perf_counter(), _cpu_of_children()
    try:
        # Not over the network, not even this machine's; in a folder of its own, as several may run at once.
        with tempfile.TemporaryDirectory() as sockets:
            client.config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
            client.execute()
    except (CellControlSignal, DeadKernelError) as error:  # CellControlSignal: an exception, or too long a cell
        return f"{name}: {COLOUR.sub('', str(error))}"
    notebook.metadata = nbformat.from_dict(KERNEL)  # the kernel adds the version of its Python
    seconds, cpu = time.perf_counter() - began, _cpu_of_children() - cpu
    path = out / f"{name}.ipynb"
    nbformat.write(notebook, path)
    print(f"{name}: {seconds:.0f} s, {cpu:.0f} s of CPU, {path.stat().st_size / 1e6:.2f} MB")
    noise = [text for cell in notebook.cells for text in _standard_error(cell)]
    return f"{name}: writes to standard error: {noise[0].strip()}" if noise else ""


def _standard_error(cell: nbformat.NotebookNode) -> list[str]:
    return [output.text for output in cell.get("outputs", ()) if output.get("name") == "stderr"]


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
