"""Compiling for devices that are not there, and reading what the compiler says where their memory is too small."""

import dataclasses
import re
from typing import Any

import jax

from jaxgen.plan.topologies import Topology

# Lines of a program: FCN-R50 has 11,430 and takes the compiler 2 to 3 minutes on two cores, EDM2-S 32,487 and 5.
LONG = 12_000
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the compiler returned: a program's text and memory, or else the bytes that a device would need."""

    text: str | None
    memory: Any = None
    optimized: bool = True
    needed: int = 0
    temporaries: bool = False
    """Whether the state's bytes come in addition to `needed`."""


def compile_for(lowered: Any, where: Topology, *, thorough: bool) -> Compiled:
    """Compile what `jax.jit(…).lower` returned; a long program, unless `thorough`, at the compiler's level O1."""
    optimized = thorough or where.chip is None or lowered.as_text().count("\n") <= LONG
    try:
        result = lowered.compile({} if optimized else {"optimization_level": "O1"})
    except jax.errors.JaxRuntimeError as error:
        bytes_needed = needed(str(error))
        if bytes_needed is None:
            raise
        return Compiled(None, needed=bytes_needed, temporaries="temporaries" in str(error))
    return Compiled(result.as_text(), result.memory_analysis(), optimized)


def needed(message: str) -> int | None:
    """Read the bytes needed from the TPU compiler's message of too little memory, the first of its numbers; or None."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    sizes = [float(n) * UNITS[unit] for n, unit in re.findall(r"\b(\d+(?:\.\d+)?)([KMGT])\b", message)]
    return round(sizes[0]) if sizes else None
