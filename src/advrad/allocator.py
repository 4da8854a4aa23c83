"""Freed memory stays with the process while it computes.

Each step of a network frees its tensors and asks for the same ones again. By default glibc hands
large blocks back to the system at once and gets them back page by page, zeroed; keeping them saves
a good part of that. A choice for a whole process, so the command line makes it, and a grid for
the processes that it begins; the library does not.
"""

import ctypes
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # names of mallopt(3)


def keep_freed_memory() -> bool:
    """Whether the C library could be told; it goes without elsewhere than on glibc."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = {MMAP_THRESHOLD: 2**30, TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 2**28}
    return all(mallopt(name, value) == 1 for name, value in wanted.items())
