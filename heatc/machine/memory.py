"""DRAM of the machine: one byte-addressed space, weights read-only below the rest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.isa.table import DTYPES

Bytes = NDArray[np.uint8]
Array = NDArray[np.generic]

NUMPY_DTYPES: dict[str, np.dtype[np.generic]] = {
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "f32": np.dtype(np.float32),
    "i4": np.dtype(np.int8),
}
"""The element types of tensors, and of tiles of `i4`; `acc` is float64."""


class Memory:
    """
    A byte-addressed DRAM of `size` bytes.

    [0, W) maps `weights` read-only without a copy, [W, size) is writable and zero at first.
    """

    def __init__(self, weights: Bytes, size: int):
        if weights.ndim != 1 or weights.dtype != np.uint8:
            raise HeatcError(f"weights must be a row of bytes, got {weights.dtype}{weights.shape}")
        if size < weights.size:
            raise HeatcError(
                f"a memory of {size} bytes cannot hold {weights.size} bytes of weights"
            )
        self.size = size
        self.weight_bytes = int(weights.size)
        self._weights = weights.view()
        self._weights.flags.writeable = False
        self._rest = np.zeros(size - self.weight_bytes, np.uint8)

    def view(self, base: int, dtype: str, rows: int, columns: int) -> Array:
        """
        A (rows, columns) view of row-major elements at byte `base`; of weights it is read-only.

        A view that leaves the memory, or that is partly weights, is a `HeatcError`.
        """
        nbytes = rows * columns * DTYPES[dtype]
        end = base + nbytes
        if base < 0 or end > self.size or rows < 0 or columns < 0:
            raise HeatcError(
                f"bytes {base}..{end} are outside of the memory",
                notes=[f"it has {self.size} bytes"],
            )
        if base < self.weight_bytes < end:
            raise HeatcError(
                f"bytes {base}..{end} are partly weights",
                notes=[f"they end at {self.weight_bytes}"],
            )
        if base < self.weight_bytes:
            part = self._weights[base:end]
        else:
            part = self._rest[base - self.weight_bytes : end - self.weight_bytes]
        return part.view(NUMPY_DTYPES[dtype]).reshape(rows, columns)

    def write(self, base: int, values: Array, dtype: str) -> None:
        """Place an array, flattened, at byte `base` (inputs, before a run)."""
        self.view(base, dtype, 1, values.size)[0] = values.reshape(-1)
