"""Several processes, one run: how they find each other, which one writes, and how they wait for each other."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.errors import UserError
from jaxgen.parallel import tpu
from jaxgen.parallel.mesh import global_array

BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize() -> None:
    """Join the other processes of this run, where there are any; called before the first array is made.

    Under SLURM's srun, Open MPI's mpirun and on TPU pods jax finds them; elsewhere JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID name them. Raises UserError if these are incomplete, or no process answers.
    """
    values = {name: os.environ.get(name) for name in BY_HAND}
    try:
        if values["JAX_NUM_PROCESSES"] or values["JAX_PROCESS_ID"]:
            if missing := [name for name, value in values.items() if not value]:
                raise UserError(f"{', '.join(missing)} is not set; a process of several needs {', '.join(BY_HAND)}")
            count, index = int(str(values["JAX_NUM_PROCESSES"])), int(str(values["JAX_PROCESS_ID"]))
            jax.distributed.initialize(values["JAX_COORDINATOR_ADDRESS"], count, index)
        elif _in_a_cluster():
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes: {str(error).splitlines()[0]:.160}\n"
            f"set {', '.join(BY_HAND)} for each process, or start one process alone"
        ) from error


def _in_a_cluster() -> bool:
    """Whether jax can find the other processes by itself."""
    env = os.environ
    slurm = "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", "1")) > 1
    mpi = int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    return slurm or mpi or (env.get("JAX_PLATFORMS", "tpu").startswith("tpu") and tpu.present())


def is_main_process() -> bool:
    """Whether this is the process that writes logs, previews and results."""
    return jax.process_index() == 0


def barrier(where: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def of_main_process(flag: bool) -> bool:
    """Return the main process's flag to every process."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def any_process(mesh: Mesh, wish: Callable[[], bool]) -> Callable[[], bool]:
    """Return `wish` for a mesh of one process; of several, whether any of them wished for it one call before.

    A process that stopped alone would leave the others waiting in their next step. All of them take part in
    each call, and its result is read one call later, when the devices have computed it: no step waits for it.
    """
    if not mesh.is_multi_process:
        return wish
    spread = NamedSharding(mesh, PartitionSpec(tuple(mesh.shape)))
    asked: list[Any] = []

    def ask() -> bool:
        mine = np.array([wish()])
        asked.append(jnp.any(global_array((mesh.size,), spread, lambda _: mine)))
        return len(asked) > 1 and bool(jax.device_get(asked.pop(0)))

    return ask


def use_compilation_cache() -> None:
    """Keep programs that took half a second to compile between runs; called before the first array is made.

    JAX_COMPILATION_CACHE_DIR names another folder than ~/.cache/jaxgen/xla, and
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS another time.
    """
    if not jax.config.jax_compilation_cache_dir:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "jaxgen" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
