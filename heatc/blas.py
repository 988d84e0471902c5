"""
The kernels that NumPy's OpenBLAS takes on this machine.

OpenBLAS does not recognise newer AMD cores and falls back to AVX2 there; `OPENBLAS_CORETYPE`, set
before NumPy is loaded, makes it use AVX-512. A user's own setting is left alone.
"""

from __future__ import annotations

import os
import sys

_NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def prefer_avx512() -> None:
    """Ask for AVX-512 kernels where the CPU has them; of no effect once NumPy is loaded."""
    if "numpy" in sys.modules or "OPENBLAS_CORETYPE" in os.environ:
        return
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return
    if set(flags) >= _NEEDED:
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
