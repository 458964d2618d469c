"""Devices that are not there, to compile for: TPU slices by the TPU's own compiler, and fake CPU devices."""

import dataclasses
import importlib.util
import math
import os
from typing import Any

import jax
from jax.experimental import topologies

from jaxgen.errors import UserError
from jaxgen.parallel.tpu import spare_libtpu
from jaxgen.plan import chips
from jaxgen.plan.chips import Chip


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for, and their chip; None for fake CPU devices."""

    name: str
    chip: Chip | None
    shape: tuple[int, ...]
    """Sides of one slice, in chips."""
    slices: int
    devices: tuple[Any, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.shape) * self.slices


def topology(name: str, slices: int = 1) -> Topology:
    """Return the devices of v5e:4x4 and the like, `slices` times, or those of cpu:N.

    Raises UserError if there is no such topology, libtpu is not installed, or this process has its CPU devices already.
    """
    chip, shape = chips.topology(name)
    # Nothing here runs on a TPU, and a TPU that is here must stay free for the process that uses it.
    jax.config.update("jax_platforms", "cpu")
    if chip is None:
        return Topology(name, None, shape, 1, _fake(shape[0]))
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"{name}: the TPU's compiler is not installed; use uv run --extra plan jaxgen plan …, or "
            f"--topology cpu:{math.prod(shape)} for what fake devices can show"
        )
    spare_libtpu()
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # its lock is for processes that compute
    more = {} if slices == 1 else {"num_slices": slices}
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name, **more)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"{name}: the TPU's compiler says: {str(error).splitlines()[0]:.160}") from error
    return Topology(name, chip, shape, slices, tuple(description.devices))


def _fake(count: int) -> tuple[Any, ...]:
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # the devices are there already, as in tests
        if len(jax.devices("cpu")) < count:
            raise UserError(f"cpu:{count}: this process has {len(jax.devices('cpu'))} CPU devices already") from None
    return tuple(jax.devices("cpu")[:count])
