"""The memory of this process: what is freed is kept for the next batch."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1  # malloc.h
_BLOCKS = (1 << 30, 1 << 25)  # the second is the most that older versions take


def keep_freed_memory() -> bool:
    """Tell glibc to keep the memory that is freed, up to 2 GiB, for what is asked next; False where there is no glibc.

    The activations of a batch are large blocks, and by default glibc gives large blocks back to the system as soon as they are free.
    Every forward pass then gets all its memory anew, page by page, which takes up to a third of its time.

    It holds for the whole process, so it is for programs to call and not for libraries: the command line and the workers of a cluster do.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and any(mallopt(_MMAP_THRESHOLD, size) for size in _BLOCKS) and bool(mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
