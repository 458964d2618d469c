"""What the compiler is told, by platform: settings chosen by measurement, in one place."""

import functools
import os

import jax
from jax.sharding import Mesh

YNN = "xla_cpu_experimental_ynn_fusion_type"
PASSES = "xla_disable_hlo_passes"

# By default XLA:CPU hands convolutions one by one to YNNPACK, products too. The products gain by it; the convolutions
# of training steps lose, most of all their gradients. Its own sums, such as those of a bias's gradient, run on one
# thread and compute anew all that they sum; YNNPACK's do not, and compile in two thirds of the time. And its algebraic
# simplifier exchanges image and kernel where the kernel is the larger one, which leaves convolutions of maps up to 2×2
# to plain loops, several times slower; no option forbids that alone. Without it, nothing takes away again what the
# mover of reshapes adds: each kernel's gradient would be transposed and copied up to 300 times
# (benchmarks/results/README.md has the figures).
CPU = {YNN: "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE", PASSES: "algsimp,reshape-mover"}
WHY = {
    YNN: "convolutions by XLA's own code, products and sums by YNNPACK",
    PASSES: "no plain loops for convolutions of small maps, no chains of transposes",
}


def options(mesh: Mesh) -> dict[str, str]:
    """Return the compiler options for programs on this mesh; {} for all platforms but CPU.

    What the user has set in XLA_FLAGS is left alone, and what this jaxlib does not know is left out.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {name: value for name, value in CPU.items() if name not in os.environ.get("XLA_FLAGS", "") and _known(name)}


def explained(chosen: dict[str, str]) -> str:
    """Return options in one line, each with its reason."""
    return "; ".join(f"{name}={value} ({WHY[name]})" for name, value in chosen.items()) or "XLA's own"


@functools.cache
def _known(name: str) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: CPU[name]}).lower().compile()
    except jax.errors.JaxRuntimeError:  # "No such compile option"
        return False
    return True
