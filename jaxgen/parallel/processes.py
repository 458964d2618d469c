"""Several processes, one run: how they find each other, who speaks, and how they wait for each other."""

import glob
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.errors import UserError
from jaxgen.parallel.mesh import global_array

BY_HAND = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def initialize() -> None:
    """Join the other processes of this run, where there are any; to be called before the first array is made.

    SLURM's srun, Open MPI's mpirun and TPU pods tell jax who they are; elsewhere JAX_COORDINATOR_ADDRESS,
    JAX_NUM_PROCESSES and JAX_PROCESS_ID do. Raises UserError if these are incomplete, or nobody answers.
    """
    given = {name: os.environ.get(name) for name in BY_HAND}
    try:
        if given["JAX_NUM_PROCESSES"] or given["JAX_PROCESS_ID"]:
            if missing := [name for name, value in given.items() if not value]:
                raise UserError(f"{', '.join(missing)} is not set; a process of several needs {', '.join(BY_HAND)}")
            count, index = int(str(given["JAX_NUM_PROCESSES"])), int(str(given["JAX_PROCESS_ID"]))
            jax.distributed.initialize(given["JAX_COORDINATOR_ADDRESS"], count, index)
        elif _in_a_cluster():
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"cannot join the other processes: {str(error).splitlines()[0]:.160}\n"
            f"set {', '.join(BY_HAND)} for each process, or start one process alone"
        ) from error


def _in_a_cluster() -> bool:
    """Whether jax can find out by itself who the other processes are."""
    env = os.environ
    slurm = "SLURM_STEP_NODELIST" in env and int(env.get("SLURM_NTASKS", "1")) > 1
    mpi = int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1
    return slurm or mpi or (env.get("JAX_PLATFORMS", "tpu").startswith("tpu") and _has_tpu())


def _has_tpu() -> bool:
    devices = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def spare_libtpu() -> None:
    """Tell libtpu, where no TPU is here, what it would else ask a cloud machine's metadata for, and complain about."""
    if not _has_tpu():
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")  # any will do
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def is_main_process() -> bool:
    """Whether this is the process that writes logs, pictures and results."""
    return jax.process_index() == 0


def barrier(where: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def any_process(mesh: Mesh, wish: Callable[[], bool]) -> Callable[[], bool]:
    """Return `wish` for a mesh of one process; of several, whether any of them wished for it a call ago.

    A process that stopped alone would leave the others waiting in their next step. All of them ask in turn, and each
    answer is read one call late, when the devices have long computed it: no step waits for it.
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
