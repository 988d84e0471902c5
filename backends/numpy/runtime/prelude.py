# pyright: basic
"""What every program begins with: its weights."""

import functools
import json
import os
import sys


def _prefer_avx512() -> None:
    """
    Let OpenBLAS take its AVX-512 kernels where the CPU has them.

    It does not know newer AMD cores and falls back to AVX2 there. It reads the variable when
    NumPy is loaded, so this has no effect in a process that imported NumPy before.
    """
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return
    if {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"} <= set(flags):
        os.environ.setdefault("OPENBLAS_CORETYPE", "SkylakeX")


if "numpy" not in sys.modules:
    _prefer_avx512()

import numpy as np  # noqa: E402

WEIGHTS = os.path.splitext(os.path.abspath(__file__))[0] + ".safetensors"
# fmt: off
DTYPES = {
    "F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}
# fmt: on
PROGRAM = ""  # the weights name the program that they belong to


@functools.cache
def weights():
    """The arrays of the safetensors file beside this one by name, mapped, not read."""
    with open(WEIGHTS, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    if header.pop("__metadata__", {}).get("program") != PROGRAM:
        raise ValueError(f"{WEIGHTS} has the weights of another program: compile this one again")
    data = np.asarray(np.memmap(WEIGHTS, np.uint8, "r", offset=8 + size))
    arrays = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        arrays[name] = data[start:stop].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays
