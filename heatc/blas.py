"""
How OpenBLAS works on this machine: settings that it reads when NumPy is loaded.

OpenBLAS does not recognise newer AMD cores and falls back to AVX2 there; `OPENBLAS_CORETYPE` makes
it use AVX-512. NumPy and SciPy bring an OpenBLAS each, and the threads of the one that was called
last spin for some 20 ms on the cores that the other wants: an eigenproblem of 768 takes twice as
long after a product. `OPENBLAS_THREAD_TIMEOUT` lets them sleep after 2^12 cycles. A user's own
settings are left alone.
"""

from __future__ import annotations

import os
import sys

_NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}


def set_up() -> None:
    """Ask for AVX-512 kernels where the CPU has them, and for threads that rest."""
    if "numpy" in sys.modules:
        return
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "12")
    if "OPENBLAS_CORETYPE" not in os.environ:
        _prefer_avx512()


def _prefer_avx512() -> None:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "").split()
    except OSError:
        return
    if set(flags) >= _NEEDED:
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"
