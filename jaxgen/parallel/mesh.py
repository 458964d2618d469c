"""The mesh: how the devices at hand are laid out, and how batches lie on it."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgen.typing import Tree, UserError

BATCH_AXES = ("replica", "fsdp")  # the axes that a batch is split over


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Sizes of the mesh's axes; one of them may be -1 to take the devices that the others leave."""

    replica: int = -1
    """Copies of the model, each with a share of the batch."""
    fsdp: int = 1
    """Devices that share one copy's parameters and its share of the batch."""
    tensor: int = 1
    """Devices that share the work of single layers."""

    def build(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """Lay the devices (all of them by default) out as a mesh with Auto axes.

        Raises UserError if the sizes do not multiply to the number of devices.
        """
        devices = jax.devices() if devices is None else devices
        sizes = dataclasses.asdict(self)
        fill = [name for name, size in sizes.items() if size == -1]
        if len(fill) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
            raise UserError(f"mesh: sizes are whole numbers from 1, and one of them may be -1; got {sizes}")
        known = math.prod(size for size in sizes.values() if size != -1)
        if fill:
            sizes[fill[0]] = len(devices) // known
        if math.prod(sizes.values()) != len(devices) or not devices:
            raise UserError(
                f"mesh: {sizes} do not multiply to the {len(devices)} device(s) at hand; "
                f"set one of --mesh.{', --mesh.'.join(sizes)} to -1 to fill"
            )
        # make_mesh's default axes are Explicit, under which Linen's Dropout raises.
        types = (AxisType.Auto,) * len(sizes)
        return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=list(devices))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every array of a batch: its first axis over replica x fsdp."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_parts(mesh: Mesh) -> int:
    """Number of devices, or groups of devices, that a batch is split over."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(mesh: Mesh, batch_size: int, turns: int = 1) -> None:
    """Raise UserError unless each device gets the same number of examples at each of `turns` turns."""
    parts = batch_parts(mesh)
    if batch_size % (parts * turns):
        near = max(1, round(batch_size / (parts * turns))) * parts * turns
        pieces = f"{parts} device(s)" + (f" x {turns} turns (microbatches, or nets)" if turns > 1 else "")
        raise UserError(f"batch size {batch_size} does not divide over {pieces}; try --batch-size {near}")


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Start the copy of this process's rows to its devices and return the global arrays at once."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def with_shardings(shapes: Tree, shardings: Tree) -> Tree:
    """Attach shardings to shapes, as a restore wants them."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
