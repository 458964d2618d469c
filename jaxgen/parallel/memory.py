"""How much memory a device has left."""

import pathlib

import jax

LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))


def free(device: jax.Device) -> int | None:
    """Return the bytes that can still be allocated on a device; None where the platform does not say."""
    if device.platform == "cpu":
        return free_on_host()
    found = device.memory_stats()
    return None if not found or "bytes_limit" not in found else found["bytes_limit"] - found["bytes_in_use"]


def free_on_host() -> int | None:
    """Return the bytes that this process can still allocate, in its container too; None where the system hides it."""
    return min((each for each in (_of_machine(), *map(_of_group, LIMITS)) if each is not None), default=None)


def _of_machine() -> int | None:
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _of_group(names: tuple[str, str]) -> int | None:
    try:
        limit, used = ((pathlib.Path("/sys/fs/cgroup") / name).read_text().strip() for name in names)
        return int(limit) - int(used)
    except (OSError, ValueError):  # no such file, or "max": no limit
        return None
