"""Accelerators as a roofline sees them: how much they hold, and how fast they compute, read and communicate.

All numbers are the vendors' nominal ones, per chip; no program reaches them.
"""

import dataclasses
import math
import re

from jaxgen.errors import UserError

GIB = 2**30  # bytes; what vendors sell as a "GB" of memory is this
GOOGLE = "https://docs.cloud.google.com/tpu/docs"
NVIDIA = "https://www.nvidia.com/en-us/data-center"
IMAGES = "https://images.nvidia.com"
BOOK = "https://jax-ml.github.io/scaling-book"  # "How to scale your model"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator; what JAX shows as a device has a share of 1/cores in its memory, peak and bandwidth."""

    name: str
    """What people call it."""
    kinds: tuple[str, ...]
    """The strings that `jax.Device.device_kind` may be."""
    memory: int
    """Nominal size of the main memory, in bytes; compilers keep some of it back (of a v5e's 16 GiB, 0.25)."""
    peak: float
    """FLOP/s of dense bfloat16 matrix products (float16 on T4 and V100, which have no bfloat16)."""
    bandwidth: float
    """Bytes/s between main memory and compute."""
    link: float
    """Bytes/s one way to one neighbour; of a GPU to all others together (by NVLink, or PCIe where it has none)."""
    links: int
    """Dimensions of the torus, each with a neighbour on both sides; 1 for GPUs."""
    cores: int = 1
    """Devices that JAX shows for one chip."""
    wraps: int | None = None
    """Sides of a slice that are multiples of this close into rings; None where none does."""
    pod: int | None = None
    """Chips of the largest slice; None where chips come in no slices."""
    shapes: tuple[str, ...] = ()
    """Slices that the documentation lists, as 2x4; empty where it is silent."""
    sources: tuple[str, ...]
    """Addresses of what the numbers are from."""

    def rings(self, shape: tuple[int, ...]) -> tuple[bool, ...]:
        """Return for each side of a slice whether its links close into a ring, over which both directions work."""
        closed = [self.wraps is not None and side % self.wraps == 0 for side in shape]
        # In three dimensions optical switches close the rings, and they join whole cubes only: 2x4x4 has none.
        return (all(closed),) * len(shape) if self.links == 3 else tuple(closed)


# From v5 on `link` is half of what Google calls the bidirectional bandwidth of a chip, by its ports (two for each
# dimension). The book gives 0.9 of that, 4.5e10 and 9e10, for v4 too: what operations get.

V2 = Chip(
    name="TPU v2",
    kinds=("TPU v2",),
    memory=16 * GIB,
    peak=4.6e13,
    bandwidth=7.0e11,  # the papers; JAX 0.12's tpu_info says 7.16e11
    link=6.2e10,  # 496 Gbit/s
    links=2,
    cores=2,
    wraps=16,  # the side of the pod: no source says that less would close
    pod=256,  # the documentation's "512 chips" are the cores of its largest type, v2-512
    sources=("https://doi.org/10.1145/3360307", "https://doi.org/10.1109/MM.2021.3058217", f"{GOOGLE}/v2"),
)
V3 = Chip(
    name="TPU v3",
    kinds=("TPU v3",),
    memory=32 * GIB,
    peak=1.23e14,  # the book and JAX say 1.4e14
    bandwidth=9.0e11,  # JAX says 8.25e11
    # 656 Gbit/s, which agrees with the documentation's all-reduce of 340 TB/s over 1024 chips with 4 ports each.
    # The v4 paper says 7e10, the book 1e11.
    link=8.2e10,
    links=2,
    cores=2,
    wraps=32,  # the side of the pod, as of v2
    pod=1024,
    sources=(f"{GOOGLE}/v3", "https://doi.org/10.1145/3360307", "https://arxiv.org/abs/2304.01433", f"{BOOK}/tpus"),
)
V4 = Chip(
    name="TPU v4",
    kinds=("TPU v4",),
    memory=32 * GIB,
    peak=2.75e14,
    bandwidth=1.2e12,
    link=5e10,  # table 4 of the paper; the documentation's all-reduce of 1.1 PB/s over 4096 chips makes 4.5e10
    links=3,
    wraps=4,
    pod=4096,
    shapes=("2x2x4", "4x4x8", "4x8x8", "8x8x16", "12x12x24"),
    sources=(f"{GOOGLE}/v4", "https://cloud.google.com/tpu/docs/types-topologies", "https://arxiv.org/abs/2304.01433"),
)
FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
V5E = Chip(
    name="TPU v5e",
    kinds=("TPU v5 lite", "TPU v5e"),
    memory=16 * GIB,
    peak=1.97e14,
    bandwidth=8.19e11,  # one edition of the page says 800 GiB/s; JAX says 8.2e11, the book 8.1e11
    link=5e10,  # 400 GB/s both ways over 4 ports
    links=2,
    wraps=16,
    pod=256,
    shapes=FLAT,
    sources=(f"{GOOGLE}/v5e", f"{BOOK}/tpus"),
)
V5P = Chip(
    name="TPU v5p",
    kinds=("TPU v5", "TPU v5p"),
    memory=95 * GIB,  # of 96 that are there, says the page: it has already taken off what the system keeps
    peak=4.59e14,
    bandwidth=2.765e12,
    link=1e11,  # 1200 GB/s both ways over 6 ports
    links=3,
    wraps=4,
    pod=8960,  # 16x20x28; the largest that Google schedules is 16x16x24
    shapes=(
        *("2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
        *("8x8x16", "8x16x16", "16x16x16", "16x16x24"),
    ),
    sources=(f"{GOOGLE}/v5p", f"{BOOK}/tpus"),
)
V6E = Chip(
    name="TPU v6e (Trillium)",
    kinds=("TPU v6 lite", "TPU v6e"),
    memory=32 * GIB,
    peak=9.18e14,
    bandwidth=1.638e12,  # older editions of the page say 1640 GB/s, the book 1.6e12
    link=1e11,  # 800 GB/s both ways over 4 ports; older editions say 3584 Gbit/s
    links=2,
    wraps=16,
    pod=256,
    shapes=FLAT,
    sources=(f"{GOOGLE}/v6e", f"{BOOK}/tpus"),
)
V7X = Chip(
    name="TPU7x (Ironwood)",
    kinds=("TPU7x",),
    memory=192 * GIB,
    peak=2.307e15,
    bandwidth=7.38e12,
    link=1e11,  # 1200 GB/s both ways over the 6 ports of a torus in three dimensions
    links=3,
    cores=2,
    wraps=4,  # cubes of 4x4x4, as of v5p, which the page likens it to
    pod=9216,
    sources=(f"{GOOGLE}/tpu7x",),
)

# NVIDIA states matrix products with sparsity where it has any, twice as fast, and NVLink both ways together. The
# cards for PCIe of the same names are slower and have other kinds; they are not here.

A100_40 = Chip(
    name="A100 40GB SXM",
    kinds=("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
    memory=40 * GIB,
    peak=3.12e14,
    bandwidth=1.555e12,
    link=3e11,
    links=1,
    sources=(
        f"{NVIDIA}/a100",
        f"{IMAGES}/aem-dam/en-zz/Solutions/data-center/nvidia-ampere-architecture-whitepaper.pdf",
        f"{BOOK}/gpus",
    ),
)
A100_80 = dataclasses.replace(
    A100_40,
    name="A100 80GB SXM",
    kinds=("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
    memory=80 * GIB,
    bandwidth=2.039e12,
)
H100 = Chip(
    name="H100 SXM",
    kinds=("NVIDIA H100 80GB HBM3",),
    memory=80 * GIB,
    peak=9.89e14,
    bandwidth=3.35e12,
    link=4.5e11,
    links=1,
    sources=(f"{NVIDIA}/h100", f"{BOOK}/gpus"),
)
H200 = dataclasses.replace(
    H100,
    name="H200 SXM",
    kinds=("NVIDIA H200",),
    memory=141 * GIB,
    bandwidth=4.8e12,
    sources=(f"{NVIDIA}/h200", f"{BOOK}/gpus"),
)
B200 = Chip(
    name="B200",
    kinds=("NVIDIA B200",),
    memory=180 * GIB,  # of DGX and HGX; the book says 192 GB, nearly the same number of bytes
    peak=2.25e15,
    bandwidth=8e12,  # the width and clock that the driver reports make 7.67e12 (github.com/pytorch/ao/pull/4002)
    link=9e11,
    links=1,
    sources=(f"{NVIDIA}/dgx-b200", f"{NVIDIA}/hgx", f"{BOOK}/gpus"),
)
L40S = Chip(
    name="L40S",
    kinds=("NVIDIA L40S",),
    memory=48 * GIB,
    peak=3.62e14,
    bandwidth=8.64e11,
    link=3.2e10,  # PCIe 4 x16
    links=1,
    sources=(f"{NVIDIA}/l40s",),
)
L4 = Chip(
    name="L4",
    kinds=("NVIDIA L4",),
    memory=24 * GIB,
    peak=1.21e14,
    bandwidth=3e11,
    link=3.2e10,  # PCIe 4 x16
    links=1,
    sources=(f"{NVIDIA}/l4",),
)
T4 = Chip(
    name="T4",
    kinds=("Tesla T4", "NVIDIA T4"),
    memory=16 * GIB,
    peak=6.5e13,
    bandwidth=3.2e11,
    link=1.6e10,  # PCIe 3 x16
    links=1,
    sources=(f"{NVIDIA}/tesla-t4",),
)
V100_16 = Chip(
    name="V100 16GB SXM2",
    kinds=("Tesla V100-SXM2-16GB",),
    memory=16 * GIB,
    peak=1.25e14,
    bandwidth=9e11,
    link=1.5e11,
    links=1,
    sources=(f"{NVIDIA}/v100", f"{IMAGES}/content/volta-architecture/pdf/volta-architecture-whitepaper.pdf"),
)
V100_32 = dataclasses.replace(V100_16, name="V100 32GB SXM2", kinds=("Tesla V100-SXM2-32GB",), memory=32 * GIB)

# By the name that libtpu has for a generation.
GENERATIONS = {"v2": V2, "v3": V3, "v4": V4, "v5e": V5E, "v5p": V5P, "v6e": V6E, "tpu7x": V7X}
CHIPS = (*GENERATIONS.values(), A100_40, A100_80, H100, H200, B200, L40S, L4, T4, V100_16, V100_32)


def of_device_kind(kind: str) -> Chip | None:
    """Return the chip of which `jax.Device.device_kind` is `kind`, or None where the table has none."""
    return next((chip for chip in CHIPS if kind in chip.kinds), None)


def topology(name: str) -> tuple[Chip | None, tuple[int, ...]]:
    """Split the name of a slice, such as v5e:4x4, into its chip and its sides in chips; of cpu:256 the chip is None.

    Raises UserError if there is no such generation, or it has no such slice as far as its documentation says.
    """
    match = re.fullmatch(r"([a-zA-Z0-9_ ]+)[=_:]([0-9]+(?:x[0-9]+)*)", name)  # libtpu's own form
    generation, shape = (match[1], tuple(int(side) for side in match[2].split("x"))) if match else ("", ())
    if generation == "cpu" and len(shape) == 1 and shape[0]:
        return None, shape
    chip = GENERATIONS.get(generation)
    if chip is None or len(shape) != chip.links:
        known = [f"{known}:{'x'.join('4' * chip.links)}" for known, chip in GENERATIONS.items()]
        raise UserError(f"unknown topology {name!r}; known: cpu:256, {', '.join(known)}")
    if not _exists(chip, shape):
        raise UserError(f"no slice {name!r}; known: {_known(generation, chip)}")
    return chip, shape


def _exists(chip: Chip, shape: tuple[int, ...]) -> bool:
    if not 0 < math.prod(shape) <= (chip.pod or 0):
        return False
    if chip.links == 3 and chip.shapes:
        return max(shape) <= 4 or all(side % 4 == 0 for side in shape)
    return not chip.shapes or "x".join(map(str, sorted(shape))) in chip.shapes  # 4x2 is 2x4 turned


def _known(generation: str, chip: Chip) -> str:
    if not chip.shapes:
        return f"{generation}:{'x'.join('ABC'[: chip.links])} of at most {chip.pod} chips"
    listed = ", ".join(f"{generation}:{shape}" for shape in chip.shapes)
    rule = f", and others of at most {chip.pod} chips with sides all up to 4 or all multiples of 4"
    return listed + (rule if chip.links == 3 else "")
