"""
Weights by state-dict name, mapped from the file they came in.

A store never copies: `store[name]` is a read-only view of the mapped file, and a page of it
is read when it is touched. The IR carries names; whoever executes or emits carries a store.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError

Array = NDArray[np.generic]


class WeightStore(Mapping[str, Array]):
    """
    Read-only arrays by state-dict name.

    `source` is the file the arrays are mapped from, or None for arrays given from Python.
    """

    def __init__(self, arrays: Mapping[str, Array], source: Path | None = None):
        self._arrays = dict(arrays)
        self.source = source

    def __getitem__(self, name: str) -> Array:
        try:
            return self._arrays[name]
        except KeyError:
            place = str(self.source) if self.source else "weights"
            raise HeatcError(
                f"no weight named {name!r}",
                place=place,
                notes=[f"the store has {len(self._arrays)} weights"],
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._arrays

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def checksum(self, name: str) -> str:
        """`"crc32:<8 hex digits>"` of the weight's bytes in row-major order."""
        data = np.ascontiguousarray(self[name])
        return f"crc32:{zlib.crc32(data.reshape(-1).view(np.uint8)):08x}"
