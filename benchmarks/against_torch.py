"""jaxgen beside torch: the same nets, the same batches, on one machine, in turns: benchmarks/against_torch.py.

uv run benchmarks/against_torch.py --torch PYTHON [--workloads resnet18,dit_s2] [--modes eager,compile]

PYTHON is the interpreter of an environment that has torch. Each side is a process of its own that makes whole training
steps (forward, loss, backward, optimizer, EMA) on batches that lie on the device; they are asked in turn, round after
round, so that what disturbs the machine disturbs all. Nets whose parameters differ in number are not compared. Steps
follow each other as in training, the first one of a turn is not timed, and the clock stops when the last one is done.
Float32 products take TF32 on a GPU on both sides, as is jax's default there; bfloat16 is torch.autocast on torch's
side.

The workloads sample_1, sample_16 and sample_64 draw so many images of the net of configs/diffusion/digits_edm.py, by
Euler's method on EDM's schedule; torch's side is diffusers' UNet2DModel and EDMEulerScheduler, which PYTHON then needs.
text_1 and text_16 draw so many latents from as many texts, with the encoder and the U-Net of
configs/text_to_image/emoji_unet.py, by Euler's method with guidance; torch's side is transformers' CLIPTextModel and
diffusers' UNet2DConditionModel and FlowMatchEulerDiscreteScheduler. A "step" is one such drawing, from texts or noise
to numbers on the host, and the net's FLOPs are those of one evaluation.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import math
import os
import pathlib
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from step_server import DTYPES, MODES, SAMPLING, TEXT_SAMPLING, TRAINING, WORKLOADS

from jaxgen.errors import UserError

HERE = pathlib.Path(__file__).resolve().parent
PAUSE = 0.3  # seconds between turns, in which the other side's idle threads go to sleep


class Side:
    """A process that makes steps: jaxgen's, or torch's in one mode."""

    def __init__(self, name: str, command: Sequence[str], environment: Mapping[str, str], threads: int):
        def pin() -> None:
            if hasattr(os, "sched_setaffinity"):  # the driver refuses fewer threads than cores where there is none
                os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])

        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
            preexec_fn=pin,
        )
        self.hello = self.answer()

    def ask(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer. Raises UserError where the process has ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError(f"{self.name}: the process ended with status {self.process.wait()}; what it said is above")
        return json.loads(line)

    def run(self, steps: int) -> float:
        """Return seconds a step. Raises UserError where steps fail that ran before."""
        self.ask(f"run {steps}")
        answer = self.answer()
        if "error" in answer:
            raise UserError(f"{self.name}: {_first_line(answer['error'])}")
        return answer["seconds"] / steps

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


@dataclasses.dataclass(frozen=True)
class Row:
    """What was measured of one workload."""

    workload: str
    parameters: int
    forward_gflop: dict[str, float]
    """By side."""
    seconds: dict[str, list[float]]
    """Seconds a step of each round, by side."""
    missing: dict[str, str]
    """Why a side did not run, by side."""

    def median(self, side: str) -> float:
        return statistics.median(self.seconds[side])

    def quartiles(self, side: str) -> tuple[float, float]:
        if len(self.seconds[side]) < 2:
            return self.median(side), self.median(side)
        first, _, third = statistics.quantiles(self.seconds[side], n=4, method="inclusive")
        return first, third

    @property
    def ratio(self) -> float | None:
        """The fastest of torch's medians over jaxgen's; None where one of them is missing."""
        rivals = [self.median(side) for side in self.seconds if side != "jaxgen"]
        return min(rivals) / self.median("jaxgen") if rivals and "jaxgen" in self.seconds else None


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def started(args: argparse.Namespace, folder: pathlib.Path) -> Iterator[list[Side]]:
    """Start all sides, jaxgen's first: it writes the batches. Raises UserError where they run on different devices."""
    shared = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
    own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONPATH": _with_path(HERE.parent)}
    files = [str(folder), "--dtype", args.dtype]
    sides: list[Side] = []
    try:
        sides.append(
            Side("jaxgen", [sys.executable, str(HERE / "jaxgen_steps.py"), *files], shared | own, args.threads)
        )
        for mode in args.modes:
            command = [args.torch, str(HERE / "torch_steps.py"), *files, "--mode", mode, "--threads", str(args.threads)]
            threads = {"OMP_NUM_THREADS": str(args.threads)}
            sides.append(Side(f"torch {mode}", command, shared | threads, args.threads))
        platforms = {side.name: side.hello["platform"] for side in sides}
        if len(set(platforms.values())) > 1:
            found = ", ".join(f"{name} on {where}" for name, where in platforms.items())
            raise UserError(
                f"the sides run on different devices: {found}; set JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES= for a "
                "CPU, or install both for the GPU"
            )
        yield sides
    finally:
        for side in sides:
            side.close()


def measure(name: str, sides: Sequence[Side], rounds: int, seconds: float) -> Row:
    """Let all sides make turns at one workload, each of so many seconds.

    Raises UserError where nets differ in parameters, and where jaxgen does not run.
    """
    for side in sides:  # all at once: compiling is not timed
        side.ask(f"open {name}")
    opened = {side.name: side.answer() for side in sides}
    missing = {side: _first_line(answer["error"]) for side, answer in opened.items() if "error" in answer}
    if "jaxgen" in missing:
        raise UserError(f"{name}: jaxgen does not run: {missing['jaxgen']}")
    ready = [side for side in sides if side.name not in missing]
    counts = {side.name: opened[side.name]["parameters"] for side in ready}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{side} {count:,}" for side, count in counts.items())
        raise UserError(f"{name}: the nets differ: {listed} parameters; nothing is compared")
    steps = {}
    for side in ready:
        time.sleep(PAUSE)
        side.run(2)
        steps[side.name] = max(1, round(seconds / side.run(3)))
    times: dict[str, list[float]] = {side.name: [] for side in ready}
    for _ in range(rounds):
        for side in ready:
            time.sleep(PAUSE)
            side.run(1)  # fetches anew what a virtual machine took back while the others ran; training has no pauses
            times[side.name].append(side.run(steps[side.name]))
    flops = {side.name: opened[side.name]["forward_flops"] / 1e9 for side in ready}
    return Row(name, counts["jaxgen"], flops, times, missing)


def table(rows: Sequence[Row], names: Sequence[str]) -> str:
    """Return a Markdown table: milliseconds a step, median (quartiles), and how much faster jaxgen is than torch."""
    sides = [f"{name} ms" for name in names]
    head = ["workload", "parameters", "forward GFLOP, jaxgen / torch", *sides, "torch / jaxgen"]
    lines = []
    for row in rows:
        torch = [value for side, value in row.forward_gflop.items() if side != "jaxgen"]
        flops = f"{row.forward_gflop['jaxgen']:.3f} / {torch[0]:.3f}" if torch else f"{row.forward_gflop['jaxgen']:.3f}"
        cells = [row.workload, f"{row.parameters:,}", flops]
        for name in names:
            if name in row.missing:
                cells.append("not available")
                continue
            first, third = (1e3 * x for x in row.quartiles(name))
            cells.append(f"{1e3 * row.median(name):.2f} ({first:.2f}–{third:.2f})")
        lines.append([*cells, "" if row.ratio is None else f"{row.ratio:.2f}"])
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if ratios:
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        lines.append(["geometric mean", *[""] * (len(head) - 2), f"{mean:.2f}"])
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (head, ["-" * width for width in widths], *lines)
    )


def _brief(row: Row) -> str:
    times = ", ".join(f"{side} {1e3 * row.median(side):.2f} ms" for side in row.seconds)
    return f"{row.workload}: {times}" + "".join(f"; {side}: not available: {why}" for side, why in row.missing.items())


def circumstances(args: argparse.Namespace, sides: Sequence[Side]) -> dict[str, str]:
    versions = dict.fromkeys(side.hello["versions"] for side in sides)
    where = sides[0].hello
    device = where["device"] if where["platform"] == "gpu" else _processor()
    return {
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["benchmarks/against_torch.py", *sys.argv[1:]]),
        "commit": _commit(),
        "device": f"{device}, {args.threads} CPU cores",
        "versions": ", ".join(versions),
        "dtype": args.dtype,
    }


def record(file: pathlib.Path, facts: Mapping[str, str], text: str, notes: Sequence[str]) -> None:
    """Append a dated section."""
    listed = "\n".join(f"- {name}: `{fact}`" for name, fact in facts.items() if name != "date")
    with file.open("a") as out:
        out.write(f"\n## {facts['date']}: {facts['device']}, {facts['dtype']}\n\n{listed}\n\n{text}\n")
        out.writelines(f"\n{note}\n" for note in notes)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _with_path(folder: pathlib.Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), text)[:200]


def _processor() -> str:
    """Name the CPU; on Linux platform.processor() says no more than its architecture."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()


def check(args: argparse.Namespace) -> None:
    """Raise UserError for what would fail after long work."""
    for option, asked, known in (("--workloads", args.workloads, WORKLOADS), ("--modes", args.modes, MODES)):
        if not asked or not set(asked) <= set(known):
            raise UserError(f"{option} {','.join(asked)}: give some of {', '.join(known)}, with commas between")
    if args.rounds < 1 or args.seconds <= 0:
        raise UserError("--rounds is at least 1, and --seconds above 0")
    available = cores()
    if not 1 <= args.threads <= available:
        raise UserError(f"--threads is {args.threads}; this process has {available} cores")
    if args.threads < available and not hasattr(os, "sched_setaffinity"):
        raise UserError("--threads: this system cannot bind processes to fewer cores; leave it out")
    if args.record and not args.record.resolve().parent.is_dir():
        raise UserError(f"--record: there is no folder {args.record.resolve().parent}")
    needed = "torch"
    if set(args.workloads) & {*SAMPLING, *TEXT_SAMPLING}:
        needed += ", diffusers"
    if set(args.workloads) & set(TEXT_SAMPLING):
        needed += ", transformers"
    try:
        found = subprocess.run([args.torch, "-c", f"import {needed}"], capture_output=True, text=True)
        why = found.stderr.strip().splitlines()[-1:] if found.returncode else []
    except OSError as error:
        why = [str(error)]
    if why:
        raise UserError(
            f"--torch {args.torch} lacks {needed} ({why[0]}); make an environment that has it: python -m venv "
            f"torchenv && torchenv/bin/pip install {needed.replace(',', '')}, then --torch torchenv/bin/python"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=sys.executable, metavar="PYTHON", help="interpreter that has torch")
    parser.add_argument("--workloads", type=_names, default=list(TRAINING), help=f"of {','.join(WORKLOADS)}")
    parser.add_argument("--modes", type=_names, default=["eager", "compile"], help=f"of {','.join(MODES)}")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--threads", type=int, default=cores(), help="CPU cores that each side may use")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", type=pathlib.Path, metavar="FILE.md", help="append a dated section to this file")
    args = parser.parse_args()
    try:
        check(args)
        with tempfile.TemporaryDirectory() as folder, started(args, pathlib.Path(folder)) as sides:
            facts, rows = circumstances(args, sides), []
            for name in args.workloads:
                rows.append(measure(name, sides, args.rounds, args.seconds))
                print(_brief(rows[-1]), file=sys.stderr, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    notes = [f"{row.workload}, {side}: not available: {why}" for row in rows for side, why in row.missing.items()]
    text = table(rows, [side.name for side in sides])
    if args.record:
        record(args.record, facts, text, notes)
    if args.json:
        print(json.dumps({**facts, "rows": [{**dataclasses.asdict(row), "ratio": row.ratio} for row in rows]}))
    else:
        print("\n".join([", ".join(facts.values()), text, *notes]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
