"""How long a training takes to begin: uv run benchmarks/first_step.py CONFIG [--repeat R] [--json] [--FIELD VALUE …].

For each state of the machine (`unprepared`: nothing compiled, data not prepared; `cold`: nothing compiled; `warm`: all
of it done before) two processes of train.py, each stopped once it has been seen:

- `at once`: every step is logged, drawn and evaluated; the first step finished, the first preview on disk, the end of
  the first evaluation.
- `as configured`: the first line of metrics and the first preview at the config's own cadences.

Seconds from the start of the process, wall and CPU (of all its threads and children; it hardly changes with what else
the machine does), medians over R processes. Linux only. The fields are the config's.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
STATES = ("unprepared", "cold", "warm")
EVERY_STEP = ("--log-every", "1", "--preview-every", "1", "--evaluate-every", "1")
TICK = os.sysconf("SC_CLK_TCK")  # of the kernel's clock, a second

Seconds = tuple[float, float]  # wall, CPU


def has(split: str) -> Callable[[pathlib.Path], bool]:
    """Return whether a run folder has a line of metrics of a split."""

    def found(run: pathlib.Path) -> bool:
        file = run / "metrics.jsonl"
        return file.exists() and f'"split": "{split}"' in file.read_text()

    return found


def has_preview(run: pathlib.Path) -> bool:
    return any(run.glob("previews/step_*.png"))


KINDS = {
    "at once": (EVERY_STEP, {"step": has("train"), "preview": has_preview, "evaluation": has("test")}),
    "as configured": ((), {"metrics": has("train"), "preview": has_preview}),
}


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process, its threads and its children that have ended."""
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / TICK


def observed(
    command: list[str], env: Mapping[str, str], run: pathlib.Path, wanted: Mapping[str, Callable[[pathlib.Path], bool]]
) -> dict[str, Seconds]:
    """Start a training and stop it once its folder has all that is wanted; return when each was there.

    Raises RuntimeError with the last of its output if it ends before.
    """
    seen: dict[str, Seconds] = {}
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=output)
        try:
            while len(seen) < len(wanted):
                time.sleep(0.02)
                cpu = cpu_seconds(process.pid)  # also of one that has ended and was not waited for
                new = [name for name, there in wanted.items() if name not in seen and there(run)]
                seen |= dict.fromkeys(new, (time.perf_counter() - begin, cpu))
                if not new and process.poll() is not None:
                    output.seek(0)
                    raise RuntimeError(output.read()[-2000:].strip())
        finally:
            process.kill()
            process.wait()
    return seen


def rows(config: str, fields: list[str], states: list[str], kinds: list[str], repeat: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each state and kind of process: medians, and what was measured one by one."""
    found: dict[tuple[str, str], list[dict[str, Seconds]]] = {}
    with tempfile.TemporaryDirectory(prefix="first-step-") as name:
        scratch = pathlib.Path(name)
        for state, kind, number in itertools.product(states, kinds, range(repeat)):
            cadence, wanted = KINDS[kind]
            here = scratch / f"{state} {kind} {number}".replace(" ", "_")
            cache = scratch / "warm" if state == "warm" else here / "compiled"
            # As a user's Python does, keep the modules' bytecode, which the very first process makes.
            env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
            env |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONPYCACHEPREFIX": str(scratch / "bytecode")}
            env |= {"TFDS_DATA_DIR": str(here / "data")} if state == "unprepared" else {}
            if state == "warm" and not cache.exists():  # no cold one went before: one that is not measured
                observed(_command(config, here / "first", EVERY_STEP, fields), env, here / "first", KINDS["at once"][1])
            command = _command(config, here / "run", cadence, fields)
            found.setdefault((state, kind), []).append(observed(command, env, here / "run", wanted))
            if kind == "at once" and state != "warm" and not (scratch / "warm").exists():
                cache.rename(scratch / "warm")
            if number == repeat - 1:
                yield {"state": state, "kind": kind} | _medians(found[state, kind])


def _command(config: str, run: pathlib.Path, cadence: Sequence[str], fields: Sequence[str]) -> list[str]:
    return [sys.executable, "train.py", config, "--run-dir", str(run), *cadence, *fields]


def _medians(processes: list[dict[str, Seconds]]) -> dict[str, Any]:
    return {
        event: {
            "wall": statistics.median(one[event][0] for one in processes),
            "cpu": statistics.median(one[event][1] for one in processes),
            "all": [one[event] for one in processes],
        }
        for event in processes[0]
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("--repeat", type=int, default=3, metavar="R", help="processes of each kind")
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--json", action="store_true")
    args, fields = parser.parse_known_args()
    try:
        for row in rows(args.config, fields, args.states, args.kinds, args.repeat):
            if args.json:
                print(json.dumps(row), flush=True)
                continue
            times = "  ".join(
                f"{event} {of['wall']:.1f} s ({of['cpu']:.1f} CPU)"
                for event, of in row.items() if isinstance(of, dict)
            )  # fmt: skip
            print(f"{row['state']:10}  {row['kind']:13}  {times}", flush=True)
    except RuntimeError as error:
        print(f"error: the training ended early:\n{error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
