"""Execute the notebooks: from each .py in the percent format, in a clean kernel, to the .ipynb beside it.

uv run --extra docs notebooks/execute.py                     all of them
uv run --extra docs notebooks/execute.py 3_gan --out /tmp    one of them, and leave the .ipynb here alone
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
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    parser = argparse.ArgumentParser(description="Execute the notebooks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all by default")
    parser.add_argument(
        "--out", type=pathlib.Path, default=HERE, help="folder of the .ipynb; beside the .py by default"
    )
    args = parser.parse_args()
    names = [pathlib.Path(name).stem for name in args.names] or NAMES
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"there is no notebook {unknown[0]}; there are {', '.join(NAMES)}")
    # The same figures wherever they are made: on the CPU, and without XLA's remarks on how fast the machine is.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    args.out.mkdir(parents=True, exist_ok=True)
    wrong = [reason for name in names if (reason := executed(name, args.out))]
    if wrong:
        sys.exit("\n".join(wrong))


def executed(name: str, out: pathlib.Path) -> str:
    """Execute one notebook and write it, and return what went wrong: an exception, or a word on standard error."""
    notebook = jupytext.read(HERE / f"{name}.py")
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
