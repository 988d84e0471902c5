"""
What the C library does with memory that arrays gave back.

glibc maps every large block anew and returns it at once: clearing the pages of the next array of
that size takes a tenth of the time of a decomposition. A process that makes and drops large arrays
all the time had better keep them.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of <malloc.h>
_NEVER = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed; nothing happens with another C library."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_MMAP_MAX, 0)
