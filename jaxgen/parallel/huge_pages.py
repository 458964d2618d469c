"""Memory in pages of 2 MB. Nothing is imported that takes time.

XLA:CPU allocates what a step computes anew in every step, and Linux gives each new page of 4 kB, filled with zeros,
when it is first touched. glibc's malloc can ask for pages of 2 MB (2.35 and later), but reads its settings before
Python begins (benchmarks/results/README.md has the figures).
"""

import os
import pathlib
import sys

SETTINGS = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb"
LINUX = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask() -> None:
    """Begin this process again, with the same arguments, where malloc is then to ask for pages of 2 MB.

    Nothing happens where the user has set GLIBC_TUNABLES' glibc.malloc.hugetlb, and where asking changes nothing.
    """
    if not sys.executable or not _gains():
        return
    given = os.environ.get(SETTINGS)
    os.environ[SETTINGS] = f"{given}:{SETTING}=1" if given else f"{SETTING}=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def described() -> str:
    """Say in one line which pages memory has."""
    if SETTING in os.environ.get(SETTINGS, ""):
        return f"as {SETTINGS}={os.environ[SETTINGS]} asks"
    return f"of 4 kB; {SETTINGS}={SETTING}=1 makes training steps faster" if _gains() else "as the system gives them"


def _gains() -> bool:
    """Whether the system gives large pages to those who ask, and to no others, and nobody has said who asks."""
    try:
        glibc = os.confstr("CS_GNU_LIBC_VERSION") is not None
        on_request = "[madvise]" in LINUX.read_text()
    except (AttributeError, ValueError, OSError):  # not Linux, or another C library
        return False
    return glibc and on_request and SETTING not in os.environ.get(SETTINGS, "")
