"""The mesh: how the devices are laid out, and how batches are sharded over it."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int

from jaxgen.errors import UserError
from jaxgen.typing import Tree

AXES = ("replica", "fsdp", "context", "tensor")  # from those that communicate least to those that communicate most
BATCH_AXES = ("replica", "fsdp")  # the axes that a batch is split over


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
    """Sizes of the mesh's axes; one of them may be -1: all devices that the others leave."""

    replica: int = -1
    """Copies of the model, each with a share of the batch."""
    fsdp: int = 1
    """Devices that share one copy's parameters and its share of the batch."""
    context: int = 1
    """Devices that share the rows of each image, and so the tokens that attention runs over."""
    tensor: int = 1
    """Devices that share the work of single layers."""
    slices: int = 1
    """Slices of chips, joined by a slower network; the replicas are spread over them, nothing else crosses it."""

    def build(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """Lay the devices (all of them by default) out as a mesh with Auto axes.

        Raises UserError if the sizes do not multiply to the number of devices, or the slices do not share them evenly.
        """
        devices = list(jax.devices() if devices is None else devices)
        sizes = {axis: getattr(self, axis) for axis in AXES}
        fill = [name for name, size in sizes.items() if size == -1]
        if len(fill) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
            raise UserError(f"mesh: sizes are whole numbers from 1, and one of them may be -1; got {sizes}")
        known = math.prod(size for size in sizes.values() if size != -1)
        if fill:
            sizes[fill[0]] = len(devices) // known
        if math.prod(sizes.values()) != len(devices) or not devices:
            raise UserError(
                f"mesh: {sizes} do not multiply to the {len(devices)} device(s) here; "
                f"set one of --mesh.{', --mesh.'.join(sizes)} to -1 to fill"
            )
        if self.slices < 1 or sizes["replica"] % self.slices:
            raise UserError(
                f"mesh: {sizes['replica']} replicas do not spread evenly over {self.slices} slices; "
                "--mesh.slices divides --mesh.replica"
            )
        # make_mesh's default axes are Explicit, under which Linen's Dropout raises.
        types = (AxisType.Auto,) * len(sizes)
        if self.slices == 1:
            return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=devices)
        within = (sizes["replica"] // self.slices, *list(sizes.values())[1:])
        parts = [mesh_utils.create_device_mesh(within, part) for part in _slices(devices, self.slices)]
        return Mesh(np.concatenate(parts), tuple(sizes), axis_types=types)


def _slices(devices: list[jax.Device], count: int) -> list[list[jax.Device]]:
    """Group devices by their slice, or where the platform knows none (CPU, GPU) by their process, in order."""
    of: dict[int, list[jax.Device]] = {}
    for device in devices:
        of.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    if len(of) == 1:
        ordered = sorted(devices, key=lambda d: (d.process_index, d.id))
        share = len(devices) // count
        return [ordered[i * share : (i + 1) * share] for i in range(count)]
    if len(of) != count or len({len(part) for part in of.values()}) > 1:
        raise UserError(f"mesh: --mesh.slices is {count}, but the devices lie in {len(of)} slices; set it to that")
    return [of[index] for index in sorted(of)]


def batch_sharding(mesh: Mesh, shape: tuple[int, ...] = ()) -> NamedSharding:
    """The sharding of an array of a batch: its first axis over replica x fsdp, an image's rows over context.

    Rows that do not divide stay together.
    """
    rows = len(shape) >= 3 and mesh.shape["context"] > 1 and shape[1] % mesh.shape["context"] == 0
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES, "context") if rows else PartitionSpec(BATCH_AXES))


def batch_parts(mesh: Mesh) -> int:
    """Number of devices, or groups of devices, that a batch is split over."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(mesh: Mesh, batch_size: int, pieces: int = 1) -> None:
    """Raise UserError unless each device gets the same number of examples of each of so many equal pieces."""
    parts = batch_parts(mesh)
    if batch_size % (parts * pieces):
        near = max(1, round(batch_size / (parts * pieces))) * parts * pieces
        over = f"{parts} device(s)" + (f" x {pieces} parts (microbatches, or nets)" if pieces > 1 else "")
        raise UserError(f"batch size {batch_size} does not divide over {over}; try --batch-size {near}")


def global_array(
    shape: tuple[int, ...], sharding: NamedSharding, shard: Callable[[tuple[slice, ...]], np.ndarray]
) -> jax.Array:
    """Make a global array of which each process gives the shards on its own devices.

    By explicit copies: those of jax.make_array_from_callback are implicit, and the loop forbids these.
    """
    places = sharding.addressable_devices_indices_map(shape)
    parts = [jax.device_put(shard(index), device) for device, index in places.items() if index is not None]
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def process_rows(mesh: Mesh, batch_size: int) -> Int[np.ndarray, " n"]:
    """Return the rows of a batch that this process's devices hold, in order: what it has to read."""
    spans = batch_sharding(mesh).addressable_devices_indices_map((batch_size,)).values()
    return np.unique(np.concatenate([np.arange(batch_size)[span] for span in spans if span is not None]))


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Start the copy of this process's rows (`process_rows`) to its devices and return the global arrays at once."""
    if not mesh.is_multi_process:
        return {name: jax.device_put(rows, batch_sharding(mesh, rows.shape)) for name, rows in batch.items()}
    parts = batch_parts(mesh)
    here = process_rows(mesh, parts)  # the parts on this process's devices

    def one(local: np.ndarray) -> jax.Array:
        share = len(local) // len(here)
        shape = (share * parts, *local.shape[1:])
        place = {int(part) * share: i * share for i, part in enumerate(here)}  # of a part's first row in `local`

        def shard(index: tuple[slice, ...]) -> np.ndarray:
            begin = place[index[0].start or 0]
            return local[(slice(begin, begin + share), *index[1:])]

        return global_array(shape, batch_sharding(mesh, shape), shard)

    return {name: one(rows) for name, rows in batch.items()}


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def with_shardings(shapes: Tree, shardings: Tree) -> Tree:
    """Attach shardings to shapes, as a restore wants them."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
