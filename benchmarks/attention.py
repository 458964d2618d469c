"""Attention with and without the flash kernel of this device: uv run benchmarks/attention.py [--tokens N …].

Forward and backward of `nn.attention`'s product, in one run and in turn: median milliseconds, and the memory that the
compiled program needs beside its arguments. On a device without a flash kernel, the plain form alone.
"""

import argparse
import json
import statistics
import sys
import time
from typing import Any, Literal

import jax
import jax.numpy as jnp


def program(tokens: int, batch: int, heads: int, channels: int, implementation: Literal["cudnn"] | None) -> Any:
    """Compile the gradient of attention's sum for bfloat16 queries, keys and values."""

    def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation).astype(jnp.float32).sum()

    arrays = [jax.ShapeDtypeStruct((batch, tokens, heads, channels), jnp.bfloat16)] * 3
    return jax.jit(jax.grad(total, (0, 1, 2))).lower(*arrays).compile()


def measure(tokens: int, batch: int, heads: int, channels: int, rounds: int) -> dict[str, Any]:
    """Time both forms in turn."""
    keys = jax.random.split(jax.random.key(0), 3)
    arrays = [jax.random.normal(key, (batch, tokens, heads, channels), jnp.bfloat16) for key in keys]
    forms: dict[str, Literal["cudnn"] | None] = {"plain": None}
    if jax.devices()[0].platform == "gpu":
        forms["flash"] = "cudnn"
    compiled = {name: program(tokens, batch, heads, channels, form) for name, form in forms.items()}
    times: dict[str, list[float]] = {name: [] for name in compiled}
    for _ in range(rounds + 2):
        for name, run in compiled.items():
            begin = time.perf_counter()
            jax.block_until_ready(run(*arrays))
            times[name].append(time.perf_counter() - begin)
    return {"tokens": tokens, "batch": batch} | {
        name: {
            "milliseconds": 1e3 * statistics.median(times[name][2:]),
            "megabytes": run.memory_analysis().temp_size_in_bytes / 1e6,
        }
        for name, run in compiled.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--total", type=int, default=1 << 15, help="tokens of a batch, over all its images")
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--channels", type=int, default=72, help="of a head; DiT-XL has 72")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    device = jax.devices()[0].device_kind
    rows = [measure(n, max(1, args.total // n), args.heads, args.channels, args.rounds) for n in args.tokens]
    if args.json:
        print(json.dumps({"device": device, "rows": rows}))
        return 0
    for row in rows:
        shown = (
            f"{name} {row[name]['milliseconds']:.2f} ms, {row[name]['megabytes']:.0f} MB"
            for name in row
            if name in ("plain", "flash")
        )
        print(f"{device}  {row['batch']} x {row['tokens']} tokens  " + "  ".join(shown), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
