"""Whether a TPU is here; libtpu kept quiet where none is. Nothing is imported that takes time."""

import glob
import importlib.util
import os


def present() -> bool:
    """Return whether this machine has TPU chips and the library for them."""
    devices = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def spare_libtpu() -> None:
    """Set, where no TPU is here, what libtpu would otherwise request from a cloud machine's metadata and warn about."""
    if not present():
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-16")  # any will do
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
